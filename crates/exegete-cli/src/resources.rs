//! Threads and devices.

use anyhow::{Result, bail};

use crate::args::Common;

/// Sets the number of threads and refuses devices that this build does not have.
pub(crate) fn set_up(common: &Common) -> Result<()> {
    if common.device != "cpu" {
        bail!("--device {} is not in this build, which computes on cpu", common.device);
    }
    rayon::ThreadPoolBuilder::new().num_threads(common.threads).stack_size(16 << 20).build_global()?;
    Ok(())
}
