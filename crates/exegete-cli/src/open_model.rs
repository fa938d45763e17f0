//! From what was typed to a model.

use std::path::PathBuf;

use anyhow::Result;
use exegete_model::{LoadOptions, Model, Processing, Residence};

use crate::args::{Common, Dtype, ModelArgs};
use crate::printer::Printer;

/// The local path of a model: the path itself, or where the hub's cache keeps `org/name`.
pub(crate) fn path_of(model: &str, _printer: &Printer) -> Result<PathBuf> {
    Ok(PathBuf::from(model))
}

/// How weights are kept where nothing but `--dtype` says so.
pub(crate) fn residence(common: &Common) -> Residence {
    match common.dtype {
        Dtype::F32 => Residence::F32,
        Dtype::Bf16 => Residence::Bf16,
    }
}

/// Opens a model as it was asked for.
pub(crate) fn open(args: &ModelArgs, common: &Common, printer: &Printer) -> Result<Model> {
    let path = path_of(&args.model, printer)?;
    let residence = if args.stored_weights { Residence::Stored } else { residence(common) };
    let processing = Processing {
        fold_norms: args.fold_norms,
        centre_writing: args.centre_writing,
        centre_unembed: args.centre_unembed,
    };
    Ok(Model::open_with(&path, &LoadOptions { residence, processing })?)
}

/// Opens a model with plain settings.
pub(crate) fn open_plain(model: &str, common: &Common, printer: &Printer) -> Result<Model> {
    let options = LoadOptions { residence: residence(common), ..LoadOptions::default() };
    Ok(Model::open_with(&path_of(model, printer)?, &options)?)
}
