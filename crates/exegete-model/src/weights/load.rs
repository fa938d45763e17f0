//! From named tensors to the weights of a model: every tensor is found, checked, decoded, and put into the stack of its
//! kind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use exegete_tensor::{Device, Keep, Matrix, RowSource, Stack, Value, tensor};

use super::process::{Processing, processed_spec};
use super::tensor_bytes::MappedRows;
use super::{LayerWeights, Linear, MlpWeights, NormWeights, WeightSource, Weights};
use crate::families::Understood;
use crate::families::stored::Stored;
use crate::parts::{Part, Weight};
use crate::spec::ModelSpec;
use crate::{ModelError, Result};

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residence {
    /// In f32.
    #[default]
    F32,
    /// In bf16.
    Bf16,
    /// As they are in the file, mapped, and decoded panel by panel when used: slower, and no larger than the file.
    Stored,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// How weights are kept.
    pub residence: Residence,
    /// What is done to them first.
    pub processing: Processing,
    /// Where products are computed, if not on the CPU.
    pub device: Option<Device>,
}

impl Weights {
    /// Reads all weights, and refuses missing, unused and mis-shaped tensors. Gives the specification of what was
    /// loaded, which processing may have changed.
    ///
    /// # Errors
    /// The names of the tensors at fault; processing that does not fit the model or the way weights are kept.
    pub fn load(
        source: &dyn WeightSource,
        understood: &Understood,
        options: &LoadOptions,
    ) -> Result<(Self, ModelSpec)> {
        let path = source.path();
        let spec = processed_spec(&understood.spec, &options.processing)
            .map_err(|detail| ModelError::Request(format!("{}: {detail}", path.display())))?;
        if options.residence == Residence::Stored && options.processing != Processing::default() {
            let detail = "weights that stay as they are stored cannot be processed; keep them in f32 or bf16";
            return Err(ModelError::Request(detail.into()));
        }
        let reader = Reader::new(source, understood)?;
        let mut stacks = Stacks::new(&spec, options.residence);
        for w in spec.weights() {
            stacks.add(&reader, &spec, &options.processing, w)?;
        }
        let weights = stacks.weights(path, &spec)?.on(options.device.as_ref())?;
        Ok((weights, spec))
    }

    /// Weights from their values, for a model that is being trained: matrices `[out, in]`, in f32 or bf16.
    ///
    /// # Errors
    /// Values of another number than the specification asks for; [`Residence::Stored`].
    pub fn from_values(
        spec: &ModelSpec,
        residence: Residence,
        mut value: impl FnMut(Weight) -> Vec<f32>,
    ) -> Result<Self> {
        let mut stacks = Stacks::new(spec, residence);
        if stacks.keep.is_none() {
            return Err(ModelError::Request("weights that are no file's are kept in f32 or bf16".into()));
        }
        for w in spec.weights() {
            let values = value(w);
            if values.len() != spec.weight_shape(w).iter().product::<usize>() {
                let detail = format!("{} values for weight {w} of shape {:?}", values.len(), spec.weight_shape(w));
                return Err(ModelError::Request(detail));
            }
            stacks.put(spec, w, values)?;
        }
        stacks.weights(Path::new("values"), spec)
    }
}

/// A source with the places of a model's weights in it.
pub(super) struct Reader<'a> {
    source: &'a dyn WeightSource,
    pub(super) spec: &'a ModelSpec,
    places: BTreeMap<Weight, Stored>,
}

impl<'a> Reader<'a> {
    /// Finds every weight, and names what is missing, mis-shaped or left over before anything large is read.
    fn new(source: &'a dyn WeightSource, understood: &'a Understood) -> Result<Self> {
        let spec = &understood.spec;
        let mut places = BTreeMap::new();
        let root = root(source, understood);
        // Numbers of layers and experts are the file's to claim, so the list of weights is followed only as far as
        // there are tensors for it.
        let mut missing = Vec::new();
        for w in spec.each_weight() {
            let mut stored = (understood.locate)(spec, w);
            for name in &mut stored.tensors {
                if let Some(rest) = root.and_then(|(ours, _)| name.strip_prefix(ours)) {
                    *name = format!("{}{rest}", root.map_or("", |(_, theirs)| theirs));
                }
            }
            missing.extend(stored.tensors.iter().filter(|name| !source.has(name)).take(MOST_MISSING).cloned());
            if missing.len() >= MOST_MISSING {
                break;
            }
            if missing.is_empty() && misshaped(source, &stored).is_some() {
                // Tensors that are missing further on are not looked for.
                places.insert(w, stored);
                break;
            }
            places.insert(w, stored);
        }
        let this = Self { source, spec, places };
        this.refuse_missing(missing)?;
        this.refuse_misshaped()?;
        this.refuse_unused(understood)?;
        Ok(this)
    }

    fn fail(&self, detail: String) -> ModelError {
        ModelError::weights(self.source.path(), detail)
    }

    fn tensors(&self) -> impl Iterator<Item = &String> {
        self.places.values().flat_map(|p| &p.tensors)
    }

    fn refuse_missing(&self, mut missing: Vec<String>) -> Result<()> {
        missing.dedup();
        if let Some((name, why)) = missing.iter().find_map(|n| Some((n, self.source.unusable(n)?))) {
            return Err(self.fail(format!(
                "tensor {name:?} can be no weight ({why}); handled are F64, F32, F16, BF16 with at least one value"
            )));
        }
        match missing.iter().collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            some => Err(self.fail(format!("missing tensors: {}", list(some)))),
        }
    }

    fn refuse_misshaped(&self) -> Result<()> {
        match self.places.values().find_map(|stored| Some((stored, misshaped(self.source, stored)?))) {
            None => Ok(()),
            Some((stored, (name, found))) => {
                let want = &stored.shape;
                Err(self.fail(format!("tensor {name:?} has shape {found:?}, the configuration asks for {want:?}")))
            }
        }
    }

    fn refuse_unused(&self, understood: &Understood) -> Result<()> {
        let used: BTreeSet<&String> = self.tensors().collect();
        let tied = (understood.locate)(self.spec, Weight::global(Part::Unembed)).tensors;
        let ignored = |name: &String| {
            understood.ignored.iter().any(|part| name.contains(part)) || (self.spec.tied && tied.contains(name))
        };
        let names = self.source.names();
        let unused: Vec<&String> = names.iter().filter(|n| !used.contains(n) && !ignored(n)).collect();
        match unused.as_slice() {
            [] => Ok(()),
            some => Err(self.fail(format!("tensors that this family does not use: {}", list(some)))),
        }
    }

    /// A weight's values as they are stored: `[out, in]` or `[n]`, row-major.
    pub(super) fn stored(&self, w: Weight) -> Result<Vec<f32>> {
        let stored = self.places.get(&w).ok_or_else(|| self.fail(format!("no place for {w}")))?;
        let shape = self.spec.weight_shape(w);
        let (n, k) = (shape[0], shape.get(1).copied().unwrap_or(1));
        let mut out = vec![0f32; n * k];
        let n_tensors = stored.tensors.len();
        for (part, name) in stored.tensors.iter().enumerate() {
            let tensor = self.source.find(name).ok_or_else(|| self.fail(format!("missing tensor {name:?}")))?;
            let out = &mut out[part * n / n_tensors * k..][..n / n_tensors * k];
            if stored.transposed {
                // [in, out] with possibly more columns than ours.
                let all = tensor.values();
                let columns = tensor.row_len();
                for (i, row) in out.chunks_exact_mut(k).enumerate() {
                    let column = stored.rows.stored(i);
                    row.iter_mut().enumerate().for_each(|(j, o)| *o = all[j * columns + column]);
                }
            } else if shape.len() == 1 {
                let all = tensor.values();
                out.iter_mut().enumerate().for_each(|(i, o)| *o = all[stored.rows.stored(i)]);
            } else {
                let rows: Vec<usize> = (0..n / n_tensors).map(|i| stored.rows.stored(i)).collect();
                tensor.rows(&rows, out);
            }
            tensor.release();
        }
        if stored.plus != 0.0 {
            out.iter_mut().for_each(|x| *x += stored.plus);
        }
        Ok(out)
    }

    /// A matrix that stays in its file, if its layout allows that.
    fn mapped(&self, w: Weight) -> Option<Arc<dyn RowSource>> {
        let stored = self.places.get(&w)?;
        let [name] = stored.tensors.as_slice() else { return None };
        let tensor = self.source.find(name)?.clone();
        let usable = !stored.transposed && stored.plus == 0.0;
        usable.then(|| {
            let n = self.spec.weight_shape(w)[0];
            Arc::new(MappedRows { tensor, map: stored.rows, n }) as Arc<dyn RowSource>
        })
    }
}

/// Names of missing tensors after which no more are looked for.
const MOST_MISSING: usize = 100;

/// A tensor of another shape than the weight needs, and its shape.
fn misshaped<'a>(source: &'a dyn WeightSource, stored: &'a Stored) -> Option<(&'a String, &'a [usize])> {
    stored.tensors.iter().find_map(|name| Some((name, source.shape(name).filter(|found| *found != stored.shape)?)))
}

/// Our beginning of tensor names and the file's, where they differ: the first pair under which the embedding is found.
fn root<'a>(source: &dyn WeightSource, understood: &'a Understood) -> Option<(&'a str, &'a str)> {
    let ours = (understood.locate)(&understood.spec, Weight::global(Part::Embed)).tensors;
    let found = |(ours_root, theirs): &&(&str, &str)| {
        ours.iter().all(|name| {
            let rest = name.strip_prefix(ours_root);
            rest.is_some_and(|rest| source.has(&format!("{theirs}{rest}")))
        })
    };
    understood.roots.iter().find(found).copied()
}

/// Stacks being filled, one for each kind of matrix; vectors as they are.
struct Stacks {
    keep: Option<Keep>,
    /// Of each kind: how many matrices, and how many are filled so far.
    counts: BTreeMap<Part, usize>,
    filled: BTreeMap<Part, usize>,
    panels: BTreeMap<Part, Stack>,
    rows: BTreeMap<Part, Vec<Arc<dyn RowSource>>>,
    slots: BTreeMap<Weight, usize>,
    vectors: BTreeMap<Weight, Value>,
}

impl Stacks {
    fn new(spec: &ModelSpec, residence: Residence) -> Self {
        let mut counts = BTreeMap::new();
        for w in spec.weights() {
            *counts.entry(w.part).or_insert(0) += usize::from(is_matrix(spec, w));
        }
        let keep = match residence {
            Residence::F32 => Some(Keep::F32),
            Residence::Bf16 => Some(Keep::Bf16),
            Residence::Stored => None,
        };
        let (panels, rows) = (BTreeMap::new(), BTreeMap::new());
        let (slots, vectors) = (BTreeMap::new(), BTreeMap::new());
        Self { keep, counts, filled: BTreeMap::new(), panels, rows, slots, vectors }
    }

    fn add(&mut self, reader: &Reader, spec: &ModelSpec, processing: &Processing, w: Weight) -> Result<()> {
        if self.keep.is_some() || !is_matrix(spec, w) {
            return self.put(spec, w, processing.value(reader, spec, w)?);
        }
        let k = spec.weight_shape(w)[1];
        let unpacked = || -> Result<Arc<dyn RowSource>> { Ok(Arc::new(Unpacked { k, values: reader.stored(w)? })) };
        let source = reader.mapped(w).map_or_else(unpacked, Ok)?;
        self.next_slot(w);
        self.rows.entry(w.part).or_default().push(source);
        Ok(())
    }

    /// The place of a matrix in the stack of its kind.
    fn next_slot(&mut self, w: Weight) -> usize {
        let filled = self.filled.entry(w.part).or_insert(0);
        let slot = *filled;
        *filled += 1;
        self.slots.insert(w, slot);
        slot
    }

    /// Takes a weight's values.
    fn put(&mut self, spec: &ModelSpec, w: Weight, values: Vec<f32>) -> Result<()> {
        let shape = spec.weight_shape(w);
        if !is_matrix(spec, w) {
            self.vectors.insert(w, tensor(values, shape)?.into());
            return Ok(());
        }
        let slot = self.next_slot(w);
        let count = self.counts.get(&w.part).copied().unwrap_or(1);
        let new = || Stack::new(self.keep.unwrap_or(Keep::F32), count, shape[0], shape[1]);
        self.panels.entry(w.part).or_insert_with(new).fill(slot, 0, &values);
        Ok(())
    }

    fn weights(mut self, path: &Path, spec: &ModelSpec) -> Result<Weights> {
        let mut stacks: BTreeMap<Part, Arc<Stack>> = BTreeMap::new();
        for (part, stack) in std::mem::take(&mut self.panels) {
            stacks.insert(part, Arc::new(stack));
        }
        for (part, sources) in std::mem::take(&mut self.rows) {
            stacks.insert(part, Arc::new(Stack::from_rows(sources)));
        }
        let missing = |w: Weight| ModelError::weights(path, format!("weight {w} was not loaded"));
        let matrix = |w: Weight| -> Result<Matrix> {
            let found = stacks.get(&w.part).zip(self.slots.get(&w)).ok_or_else(|| missing(w))?;
            Ok(Matrix::new(found.0.clone(), *found.1))
        };
        let vector = |w: Weight| self.vectors.get(&w).cloned();
        let linear = |w: Weight| -> Result<Linear> { Ok(Linear { w: matrix(w)?, bias: vector(w.bias()) }) };
        let norm = |w: Weight| vector(w).map(|gain| NormWeights { gain, bias: vector(w.bias()) });
        let mut layers = Vec::new();
        for l in 0..spec.n_layers {
            let at = |part: Part| Weight::at(part, l);
            let mlp = match spec.mixture.filter(|_| spec.layers[l].mixture) {
                None => MlpWeights::Dense {
                    gate: self.slots.contains_key(&at(Part::Gate)).then(|| linear(at(Part::Gate))).transpose()?,
                    up: linear(at(Part::Up))?,
                    down: linear(at(Part::Down))?,
                },
                Some(mixture) => {
                    let expert = |part: Part, e: usize| -> Result<Matrix> {
                        Ok(matrix(Weight { expert: Some(e), ..at(part) })?.on_vectors())
                    };
                    let all = |e: usize| {
                        Ok([expert(Part::ExpertGate, e)?, expert(Part::ExpertUp, e)?, expert(Part::ExpertDown, e)?])
                    };
                    let experts = (0..mixture.n_experts).map(all).collect::<Result<_>>()?;
                    MlpWeights::Mixture { router: linear(at(Part::Router))?, experts }
                }
            };
            layers.push(LayerWeights {
                norm1: norm(at(Part::Norm1)),
                q: linear(at(Part::Q))?,
                k: linear(at(Part::K))?,
                v: linear(at(Part::V))?,
                q_norm: vector(at(Part::QNorm)),
                k_norm: vector(at(Part::KNorm)),
                o: linear(at(Part::O))?,
                norm_attn: norm(at(Part::NormAttn)),
                norm2: norm(at(Part::Norm2)),
                mlp,
                norm_mlp: norm(at(Part::NormMlp)),
            });
        }
        let embed = matrix(Weight::global(Part::Embed))?;
        let unembed = match spec.tied {
            true => Linear { w: embed.clone(), bias: None },
            false => linear(Weight::global(Part::Unembed))?,
        };
        let last = Weight::global(Part::NormFinal);
        Ok(Weights {
            embed,
            pos_embed: vector(Weight::global(Part::PosEmbed)),
            layers,
            norm_final: norm(last).ok_or_else(|| missing(last))?,
            unembed,
        })
    }
}

/// Positions are read by row and never multiplied, so they stay a plain array, as vectors do.
fn is_matrix(spec: &ModelSpec, w: Weight) -> bool {
    spec.weight_shape(w).len() == 2 && w.part != Part::PosEmbed
}

/// A matrix whose layout in the file does not allow reading it by rows, in memory.
struct Unpacked {
    k: usize,
    values: Vec<f32>,
}

impl RowSource for Unpacked {
    fn n(&self) -> usize {
        self.values.len() / self.k
    }

    fn k(&self) -> usize {
        self.k
    }

    fn row(&self, i: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[i * self.k..(i + 1) * self.k]);
    }

    fn resident_bytes(&self) -> usize {
        4 * self.values.len()
    }
}

fn list(names: &[&String]) -> String {
    let shown = names.iter().take(5).map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}
