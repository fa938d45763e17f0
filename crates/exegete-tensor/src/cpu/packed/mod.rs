//! Weights of linear layers, kept in panels in the order in which a kernel reads them.
//!
//! A panel is 32 rows of the matrix with k outermost: `[k][32]` in `f32`, `[k / 2][32][2]` in bf16. The product
//! `x W^T` walks it from beginning to end; the product `dy W` of the backward pass turns slices of the same panels
//! around, so that a weight is in memory once. The layers of a stack lie one after the other in one buffer.
//!
//! In `f32`, and in bf16 without instructions of its own, an output is a sum of chains of multiply-adds, one for each
//! slice of k, in order. So its bits depend neither on the other rows, nor on their number, nor on the threads; and
//! they are the same on every machine with a fused multiply-add. Where there is a matrix unit, `f32` products of many
//! rows run on it (module `parts`): as exact, with other last bits, which depend on there being many rows and on nothing
//! else.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod drive;
mod layout;
mod memory;
mod outer;
#[cfg(target_arch = "x86_64")]
mod parts;
pub mod screen;
mod tile;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use candle_core::Device;

use super::activation::Act;
use super::simd::{Isa, isa};
use super::{Shared, for_chunks};
use crate::device::DeviceMatrix;
use drive::{Job, Operand, Weights};
use memory::{Buffer, Scratch, as_floats_mut, as_units};
pub use outer::weight_gradient;
use tile::{Kernel, PANEL, SLICE};

/// Where rows come from that are decoded only when needed (a memory-mapped quantised tensor).
pub trait RowSource: Send + Sync {
    /// Number of rows (outputs of the layer).
    fn n(&self) -> usize;
    /// Values in a row (inputs of the layer).
    fn k(&self) -> usize;
    /// Decodes row `i` into `out`, `k` values.
    fn row(&self, i: usize, out: &mut [f32]);
    /// Bytes that the source holds.
    fn resident_bytes(&self) -> usize;
}

/// How a stack keeps its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// As they are.
    F32,
    /// Rounded to bf16. Products round their other operand too, where the machine multiplies bf16; sums are `f32`.
    Bf16,
}

/// What a stack is made of.
enum Content {
    /// Panels, `units` long each, of all layers.
    Panels { keep: Keep, units: usize, data: Buffer },
    /// A source for each layer.
    Rows(Vec<Arc<dyn RowSource>>),
}

/// Matrices `[n, k]` of one kind, one for each layer: panels in one buffer, or row sources.
pub struct Stack {
    n_layers: usize,
    n: usize,
    k: usize,
    content: Content,
    /// Whether all rows can be multiplied by parts of bf16; not known of row sources.
    can_split: bool,
}

impl Stack {
    /// Zero matrices, `n` outputs by `k` inputs, to be filled.
    pub fn new(keep: Keep, n_layers: usize, n: usize, k: usize) -> Self {
        // For bf16, whole steps of the matrix unit; the padding is zero and meets zeros.
        let units = PANEL
            * match keep {
                Keep::F32 => k,
                Keep::Bf16 => k.next_multiple_of(32) / 2,
            };
        let data = Buffer::zeroed(n_layers * n.div_ceil(PANEL) * units);
        Self { n_layers, n, k, content: Content::Panels { keep, units, data }, can_split: true }
    }

    /// Matrices that stay as they are and are decoded panel by panel at each use. All have one shape.
    pub fn from_rows(sources: Vec<Arc<dyn RowSource>>) -> Self {
        let (n, k) = sources.first().map_or((0, 0), |s| (s.n(), s.k()));
        assert!(sources.iter().all(|s| s.n() == n && s.k() == k), "row sources of different shapes in one stack");
        Self { n_layers: sources.len(), n, k, content: Content::Rows(sources), can_split: false }
    }

    /// Writes `rows` (`[r, k]`, row-major) into a layer, from row `first_row` on.
    pub fn fill(&mut self, layer: usize, first_row: usize, rows: &[f32]) {
        let (n, k) = (self.n, self.k);
        if rows.is_empty() {
            return;
        }
        let count = rows.len() / k;
        assert!(layer < self.n_layers && rows.len() == count * k && first_row + count <= n, "rows beyond the matrix");
        let Content::Panels { keep, units, data } = &mut self.content else {
            unreachable!("a stack of row sources is not filled");
        };
        let (keep, units) = (*keep, *units);
        let layer_units = n.div_ceil(PANEL) * units;
        let layer = &mut data.units_mut()[layer * layer_units..(layer + 1) * layer_units];
        let can_split = AtomicBool::new(true);
        let (from, to) = (first_row / PANEL, (first_row + count).div_ceil(PANEL));
        for_chunks(&mut layer[from * units..to * units], units, |p, panel| {
            let start = (from + p) * PANEL;
            let here = start.max(first_row)..(start + PANEL).min(first_row + count);
            let rows = &rows[(here.start - first_row) * k..(here.end - first_row) * k];
            let panel = &mut panel[here.start - start..];
            if !rows.chunks_exact(k).all(layout::can_split) {
                can_split.store(false, Relaxed);
            }
            match keep {
                Keep::F32 => layout::transpose((here.len(), k), as_units(rows), k, panel, PANEL),
                Keep::Bf16 => {
                    let (mut scratch, row_units) = (Scratch::rows(), units / PANEL);
                    let encoded = scratch.units(here.len() * row_units);
                    for (row, units) in rows.chunks_exact(k).zip(encoded.chunks_exact_mut(row_units)) {
                        layout::encode_bf16(row, units);
                    }
                    layout::transpose((here.len(), row_units), encoded, row_units, panel, PANEL);
                }
            }
        });
        self.can_split &= can_split.into_inner();
    }

    /// Number of layers.
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }
}

/// One layer of a stack, a matrix `[n, k]`.
#[derive(Clone)]
pub struct Matrix {
    stack: Arc<Stack>,
    layer: usize,
    device: Option<Arc<DeviceMatrix>>,
    on_vectors: bool,
}

/// What the product of a matrix is multiplied by: `act(x w^T (+ bias))`, of the same shape.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// The activation.
    pub act: Act,
    /// The weights.
    pub w: &'a Matrix,
    /// What is added to their product.
    pub bias: Option<&'a [f32]>,
}

/// Which kernels compute a product; the best that the machine has, unless a test says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// The matrix unit for bf16 panels and for many rows of `f32`, AVX-512 for the rest.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Pairs of bf16 on vectors, AVX-512 for the rest.
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// `f32` kernels alone; bf16 panels are widened.
    Floats(Isa),
}

impl Path {
    /// The best path of this machine.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if amx::ready() {
                return Self::Amx;
            }
            if layout::has_avx512_bf16() {
                return Self::Pairs;
            }
        }
        Self::Floats(isa())
    }

    /// Its name.
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Pairs => "avx512-bf16",
            Self::Floats(Isa::Avx512) => "avx512",
            Self::Floats(Isa::Avx2) => "avx2",
            Self::Floats(Isa::Baseline) => std::env::consts::ARCH,
        }
    }

    /// The kernel for `f32` panels.
    fn floats(self) -> Kernel {
        tile::kernel(match self {
            Self::Floats(isa) => isa,
            #[cfg(target_arch = "x86_64")]
            _ => Isa::Avx512,
        })
    }
}

/// The instructions on which this machine computes products, by name: machines with the same ones have the same bits.
pub fn instructions() -> &'static str {
    Path::best().name()
}

/// Whether the columns of a product can be multiplied by parts of bf16.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// All of them can: they are the rows of the weights, which were looked at when they came.
    Split,
    /// It must be seen: they are turned, and only the rows were looked at.
    Unknown,
    /// One of them cannot, or the product is to be computed in one way whatever the number of rows.
    Whole,
}

/// A product of `f32` panels, on the matrix unit where that is faster and the columns can be split.
fn product_of_floats(path: Path, job: &Job, columns: Columns) {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx
        && job.m >= parts::FROM_ROWS
        && columns != Columns::Whole
        && job.k > 0
        && job.cols > 0
        && let Some(left) = parts::product(job, columns == Columns::Split)
    {
        // Neighbours together: alone, each row would wait for all of the weights.
        for rows in left.chunk_by(|a, b| a + 1 == *b) {
            // SAFETY: the row is in the output.
            let out = Shared(unsafe { job.out.at(rows[0] * job.cols) });
            let x = &job.x[rows[0] * job.x_stride..];
            drive::product(&Job { m: rows.len(), x, out, ..*job }, path.floats());
        }
        return;
    }
    drive::product(job, path.floats());
}

/// Values of turned panels that the backward pass holds at a time.
const TURNED: usize = 1 << 20;
/// Slices of rows that it turns at least: the output is read and written once for each time.
const LEAST_TURNED: usize = 5;

impl Matrix {
    /// Layer `layer` of a stack.
    pub fn new(stack: Arc<Stack>, layer: usize) -> Self {
        assert!(layer < stack.n_layers, "layer {layer} of {}", stack.n_layers);
        Self { stack, layer, device: None, on_vectors: false }
    }

    /// The same, multiplied in the same way whatever the number of rows: for an expert, which gets as many as the other
    /// rows of a batch leave it.
    pub fn on_vectors(self) -> Self {
        Self { on_vectors: true, ..self }
    }

    /// Whether products of many rows may be computed by parts.
    fn can_split(&self) -> bool {
        self.stack.can_split && !self.on_vectors
    }

    /// The same with a copy on a device, on which ops of the tape then compute its products.
    ///
    /// # Errors
    /// The device's.
    pub fn on(self, device: &Device) -> crate::Result<Self> {
        let copy = DeviceMatrix::new(&self, device)?;
        Ok(Self { device: Some(Arc::new(copy)), ..self })
    }

    /// The copy on a device, if there is one.
    pub fn device(&self) -> Option<&DeviceMatrix> {
        self.device.as_deref()
    }

    /// Rows: outputs of the layer.
    pub fn n(&self) -> usize {
        self.stack.n
    }

    /// Columns: inputs of the layer.
    pub fn k(&self) -> usize {
        self.stack.k
    }

    /// How the values are kept; none for a row source.
    pub fn keep(&self) -> Option<Keep> {
        match &self.stack.content {
            Content::Panels { keep, .. } => Some(*keep),
            Content::Rows(_) => None,
        }
    }

    /// Bytes that this layer holds.
    pub fn bytes(&self) -> usize {
        match &self.stack.content {
            Content::Panels { units, .. } => self.n_panels() * units * size_of::<u32>(),
            Content::Rows(sources) => sources[self.layer].resident_bytes(),
        }
    }

    /// Row `i`, `k` values, as the products see it.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.n() && out.len() == self.k(), "row {i} of {}x{}", self.n(), self.k());
        match &self.stack.content {
            Content::Panels { keep, units, .. } => {
                let panel = &self.panels()[i / PANEL * units..][..*units];
                match keep {
                    Keep::F32 => layout::unpack_f32(panel, i % PANEL, out),
                    Keep::Bf16 => layout::unpack_bf16(panel, i % PANEL, out),
                }
            }
            Content::Rows(sources) => sources[self.layer].row(i, out),
        }
    }

    /// Rows `range`, row-major, `[range.len(), k]`.
    pub fn rows(&self, range: Range<usize>, out: &mut [f32]) {
        assert!(out.len() == range.len() * self.k(), "rows {range:?} of {}x{}", self.n(), self.k());
        for (i, out) in range.zip(out.chunks_exact_mut(self.k().max(1))) {
            self.row(i, out);
        }
    }

    /// `out[m, n] = x[m, k] W^T (+ bias[n])`.
    pub fn forward(&self, m: usize, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.forward_with(Path::best(), None, m, x, bias, out);
    }

    /// `out[m, n] = act(x G^T (+ its bias)) * (x W^T (+ bias))`, with the gate's weights `G`. The same bits as both
    /// products and [`gated`](super::activation::gated) one after the other, with a third of what goes to memory.
    pub fn forward_gated(&self, gate: Gate, m: usize, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        self.forward_with(Path::best(), Some(gate), m, x, bias, out);
    }

    /// Whether [`forward_gated`](Self::forward_gated) takes this matrix with that gate.
    pub fn takes_gate(&self, gate: &Matrix) -> bool {
        let same = (self.n(), self.k(), self.keep()) == (gate.n(), gate.k(), gate.keep());
        same && self.device.is_none() && gate.device.is_none()
    }

    /// `dx[m, k] = dy[m, n] W`.
    pub fn backward(&self, m: usize, dy: &[f32], dx: &mut [f32]) {
        self.backward_with(Path::best(), m, dy, dx);
    }

    /// [`forward`](Self::forward) on kernels that the machine must have.
    pub(crate) fn forward_with(
        &self,
        path: Path,
        gate: Option<Gate>,
        m: usize,
        x: &[f32],
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let (n, k) = (self.n(), self.k());
        assert!(x.len() == m * k && out.len() == m * n, "forward {m}x{k} by {n}x{k}");
        let biases = [bias, gate.and_then(|g| g.bias)];
        assert!(biases.into_iter().flatten().all(|b| b.len() == n), "a bias of another length than {n}");
        assert!(gate.is_none_or(|g| self.takes_gate(g.w)), "a gate unlike the matrix of {n}x{k}");
        let out = Shared(out.as_mut_ptr());
        let make = |panel: usize, out: &mut [f32]| self.make_panel(panel, out);
        let make_gate = |panel: usize, out: &mut [f32]| {
            if let Some(gate) = gate {
                gate.w.make_panel(panel, out);
            }
        };
        let weights = self.as_they_are(path).unwrap_or(Weights::Made(&make));
        let w = Operand { weights, bias };
        let gated = gate;
        let gate = gate.map(|gate| {
            let weights = gate.w.as_they_are(path).unwrap_or(Weights::Made(&make_gate));
            (gate.act, Operand { weights, bias: gate.bias })
        });
        let job = Job { m, cols: n, k, x, x_stride: k, w, gate, out, resume: false };
        match (self.keep(), path) {
            #[cfg(target_arch = "x86_64")]
            (Some(Keep::Bf16), Path::Amx) => amx::product(&job),
            #[cfg(target_arch = "x86_64")]
            (Some(Keep::Bf16), Path::Pairs) => drive::product(&job, avx512::BF16),
            _ => {
                let can_split = self.can_split() && gated.is_none_or(|g| g.w.can_split());
                product_of_floats(path, &job, if can_split { Columns::Split } else { Columns::Whole });
            }
        }
    }

    /// The panels, if a path's kernels read them as they are.
    fn as_they_are(&self, path: Path) -> Option<Weights<'_>> {
        match &self.stack.content {
            Content::Panels { keep: Keep::Bf16, .. } if matches!(path, Path::Floats(_)) => None,
            Content::Panels { units, .. } => Some(Weights::There { units: self.panels(), stride: *units }),
            Content::Rows(_) => None,
        }
    }

    /// A panel in `f32`, `[k][PANEL]`.
    fn make_panel(&self, panel: usize, out: &mut [f32]) {
        let k = self.k();
        match &self.stack.content {
            Content::Panels { keep: Keep::F32, .. } => unreachable!("panels of f32 are read as they are"),
            Content::Panels { keep: Keep::Bf16, units, .. } => {
                layout::widen(k, &self.panels()[panel * units..][..*units], out);
            }
            Content::Rows(sources) => {
                let first = panel * PANEL;
                let (mut scratch, count) = (Scratch::rows(), PANEL.min(self.n() - first));
                let rows = scratch.floats(count * k);
                for (i, row) in rows.chunks_exact_mut(k.max(1)).enumerate() {
                    sources[self.layer].row(first + i, row);
                }
                layout::transpose((count, k), as_units(rows), k, memory::as_units_mut(out), PANEL);
            }
        }
    }

    /// [`backward`](Self::backward) on kernels that the machine must have.
    ///
    /// Some rows of the matrix at a time are turned into panels of its transpose, and the product goes on from the
    /// sums of the rows before.
    pub(crate) fn backward_with(&self, path: Path, m: usize, dy: &[f32], dx: &mut [f32]) {
        let (n, k) = (self.n(), self.k());
        assert!(dy.len() == m * n && dx.len() == m * k, "backward {m}x{n} by {n}x{k}");
        if n == 0 {
            dx.fill(0.0);
        }
        #[cfg(target_arch = "x86_64")]
        if (path, self.keep()) == (Path::Amx, Some(Keep::Bf16)) && n > 0 {
            return self.backward_rounded(m, dy, dx);
        }
        let n_turned = k.div_ceil(PANEL);
        let chunk = (TURNED / (n_turned * PANEL).max(1) / SLICE).max(LEAST_TURNED) * SLICE;
        let mut scratch = Scratch::panels();
        let out = Shared(dx.as_mut_ptr());
        for from in (0..n).step_by(chunk) {
            let count = chunk.min(n - from);
            let turned = scratch.units(n_turned * count * PANEL);
            self.turn(from..from + count, turned);
            let job = Job {
                m,
                cols: k,
                k: count,
                x: dy.get(from..).unwrap_or(&[]),
                x_stride: n,
                w: Operand { weights: Weights::There { units: turned, stride: count * PANEL }, bias: None },
                gate: None,
                out,
                resume: from > 0,
            };
            product_of_floats(path, &job, if self.can_split() { Columns::Unknown } else { Columns::Whole });
        }
    }

    /// [`backward`](Self::backward) of bf16 panels on the matrix unit, which rounds `dy` too.
    #[cfg(target_arch = "x86_64")]
    fn backward_rounded(&self, m: usize, dy: &[f32], dx: &mut [f32]) {
        let (n, k) = (self.n(), self.k());
        let (n_turned, stride) = (k.div_ceil(PANEL), n.next_multiple_of(PANEL) / 2 * PANEL);
        let mut scratch = Scratch::panels();
        let turned = scratch.units(n_turned * stride);
        let shared = Shared(turned.as_mut_ptr());
        let Content::Panels { units, .. } = &self.stack.content else { unreachable!("row sources are no bf16 panels") };
        drive::run_tasks(n * k * 2, (self.n_panels(), 1), |p, _| {
            let panel = &self.panels()[p * units..][..*units];
            for q in 0..n_turned {
                // SAFETY: the block of panel p's rows in turned panel q, which this task alone writes.
                let block = unsafe { shared.range(q * stride + p * PANEL / 2 * PANEL, PANEL / 2 * PANEL) };
                layout::turn_pairs(&panel[q * PANEL / 2 * PANEL..], block);
            }
        });
        let w = Operand { weights: Weights::There { units: turned, stride }, bias: None };
        let out = Shared(dx.as_mut_ptr());
        amx::product(&Job { m, cols: k, k: n, x: dy, x_stride: n, w, gate: None, out, resume: false });
    }

    /// Rows `range`, beginning at a multiple of a panel, as panels of the transpose: `[k / 32][range.len()][32]`.
    fn turn(&self, range: Range<usize>, turned: &mut [u32]) {
        let (k, count) = (self.k(), range.len());
        let shared = Shared(as_floats_mut(turned).as_mut_ptr());
        let n_turned = k.div_ceil(PANEL);
        let tasks = (count.div_ceil(PANEL), 1);
        drive::run_tasks(count * k * 4, tasks, |p, _| {
            let rows = PANEL.min(count - p * PANEL);
            let block = |q: usize| {
                // SAFETY: the block of panel p's rows in turned panel q, which this task alone writes.
                unsafe { shared.range((q * count + p * PANEL) * PANEL, rows * PANEL) }
            };
            match &self.stack.content {
                Content::Panels { keep, units, .. } => {
                    let panel = &self.panels()[(range.start / PANEL + p) * units..][..*units];
                    for q in 0..n_turned {
                        let from = q * PANEL;
                        match keep {
                            Keep::F32 => layout::turn_f32(panel, from, (rows, PANEL.min(k - from)), block(q)),
                            Keep::Bf16 => layout::turn_bf16(panel, from, rows, block(q)),
                        }
                    }
                }
                Content::Rows(sources) => {
                    let mut scratch = Scratch::rows();
                    let row = scratch.floats(k);
                    for r in 0..rows {
                        sources[self.layer].row(range.start + p * PANEL + r, row);
                        for (q, values) in row.chunks(PANEL).enumerate() {
                            let to = &mut block(q)[r * PANEL..(r + 1) * PANEL];
                            to[..values.len()].copy_from_slice(values);
                            to[values.len()..].fill(0.0);
                        }
                    }
                }
            }
        });
    }

    /// The panels of this layer.
    fn panels(&self) -> &[u32] {
        match &self.stack.content {
            Content::Panels { units, data, .. } => {
                let len = self.n_panels() * units;
                &data.units()[self.layer * len..(self.layer + 1) * len]
            }
            Content::Rows(_) => &[],
        }
    }

    fn n_panels(&self) -> usize {
        self.stack.n.div_ceil(PANEL)
    }
}
