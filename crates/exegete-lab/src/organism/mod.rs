//! The organism: a small model trained on the [language](crate::language), of which everything is known.

pub mod abilities;
pub mod items;
pub mod search;
pub mod settings;
mod state;
mod train;
pub mod vocabulary;

use std::io::Write;
use std::path::Path;

use exegete_store::write_atomic;

pub use self::settings::OrganismSettings;
pub use self::state::{Progressed, TrainState};
pub use self::train::{TRAINING, Trainer, Training, train};
use self::vocabulary::SPECIALS;
use crate::{LabError, Result};
use exegete_model::weights::Weights;
use exegete_model::{LoadOptions, Model, Residence};

/// Writes a whole file, or nothing.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |sink| sink.write_all(bytes))?;
    Ok(())
}

/// A model of the same shape and vocabulary as the one at `path` whose weights are drawn at random, as before training.
///
/// # Errors
/// The model's.
pub fn untrained(path: &Path, seed: u64, residence: Residence) -> Result<Model> {
    let mut model = Model::open_with(path, &LoadOptions::default())?;
    let state = TrainState::new(&model.spec, seed);
    model.weights = Weights::from_values(&model.spec, residence, |w| state.values(w).to_vec())?;
    Ok(model)
}

/// Checks that a model's tokens are those of the language.
///
/// # Errors
/// [`LabError::Failed`] for a model of another language.
pub fn check_speaks(model: &Model) -> Result<()> {
    let tokenizer = model.tokenizer()?;
    let has = |(id, special): (usize, &&str)| tokenizer.ids_spelled(special).contains(&(id as u32));
    match SPECIALS.iter().enumerate().all(has) {
        true => Ok(()),
        false => {
            let detail = "the model does not speak the language of the organism, so nothing is known of its tokens; \
                          take builtin:organism, or one of `exegete lab train`";
            Err(LabError::Failed(detail.into()))
        }
    }
}
