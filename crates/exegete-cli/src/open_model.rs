//! From what was typed to a model.

use std::path::PathBuf;

use anyhow::{Result, bail};
use exegete_hub::{Hub, Reference, looks_like_reference};
use exegete_lab::builtin::Part;
use exegete_model::{LoadOptions, Model, Processing, Residence};
use exegete_tensor::device_named;

use crate::args::{Common, Dtype, ModelArgs};
use crate::builtin;
use crate::printer::{Printer, tell_download};

/// The local path of a model: the path itself, or where the hub's cache keeps `org/name`, downloaded if need be.
pub(crate) fn path_of(model: &str, printer: &Printer) -> Result<PathBuf> {
    if builtin::is_builtin(model) {
        return builtin::resolve(model, Part::Model);
    }
    if !looks_like_reference(model) {
        return Ok(PathBuf::from(model));
    }
    let reference: Reference = model.parse()?;
    Ok(Hub::from_env()?.resolve(&reference, &tell_download(printer))?)
}

/// What stands before the name of a model whose shape and vocabulary are taken, and whose weights are drawn at random.
const UNTRAINED: &str = "untrained:";

/// Opens a model by name. `untrained:NAME` is the control of everything that is found in NAME: what is found there too, training did not
/// put in (Heap et al. 2025, arXiv 2501.17727). Its seed is always the same, so that a run can open it again.
fn named(name: &str, options: &LoadOptions, printer: &Printer) -> Result<Model> {
    let Some(shape) = name.strip_prefix(UNTRAINED) else {
        return Ok(Model::open_with(&path_of(name, printer)?, options)?);
    };
    if options.device.is_some() || options.processing != Processing::default() {
        bail!("{name}: weights that are drawn stay on the processor, and are not processed");
    }
    // No file has them as they are.
    let residence = if options.residence == Residence::Stored { Residence::F32 } else { options.residence };
    Ok(exegete_lab::organism::untrained(&path_of(shape, printer)?, 0, residence)?)
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
    if args.stored_weights && common.dtype == Dtype::Bf16 {
        bail!("--stored-weights keeps weights as they are, which --dtype bf16 would change; give one of the two");
    }
    let residence = if args.stored_weights { Residence::Stored } else { residence(common) };
    let processing = Processing {
        fold_norms: args.fold_norms,
        centre_writing: args.centre_writing,
        centre_unembed: args.centre_unembed,
    };
    let device = device_named(&common.device)?;
    named(&args.model, &LoadOptions { residence, processing, device }, printer)
}

/// Opens a model of which nothing is computed: its weights are checked, and stay in their file where they can.
pub(crate) fn open_to_look(args: &ModelArgs, common: &Common, printer: &Printer) -> Result<Model> {
    if args.fold_norms || args.centre_writing || args.centre_unembed {
        return open(args, common, printer);
    }
    let options = LoadOptions { residence: Residence::Stored, ..LoadOptions::default() };
    named(&args.model, &options, printer)
}

/// Opens a model with plain settings.
pub(crate) fn open_plain(model: &str, common: &Common, printer: &Printer) -> Result<Model> {
    open_processed(model, Processing::default(), common, printer)
}

/// Opens a model with its weights processed, and otherwise with plain settings.
pub(crate) fn open_processed(model: &str, processing: Processing, common: &Common, printer: &Printer) -> Result<Model> {
    let options = LoadOptions { residence: residence(common), processing, device: device_named(&common.device)? };
    named(model, &options, printer)
}
