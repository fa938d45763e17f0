//! Threads and devices.

use anyhow::{Context, Result};
use exegete_tensor::device_named;

use crate::args::Common;

/// Sets the number of threads and refuses devices that this build or machine does not have.
pub(crate) fn set_up(common: &Common) -> Result<()> {
    device_named(&common.device).with_context(|| format!("--device {}", common.device))?;
    rayon::ThreadPoolBuilder::new().num_threads(common.threads as usize).stack_size(16 << 20).build_global()?;
    Ok(())
}
