//! The table of rows: what each compares, how often, and what it is held to.
//!
//! A row's name is the name of its case, here in [`crate::worker`] and there in `bench/peer.py`.

/// Largest relative distance (L2) between two sides' results that rounding in f32 explains.
const SAME_F32: f64 = 1e-4;
/// The same in bf16, whose values carry eight bits: a few percent of the logits after 30 layers.
const SAME_BF16: f64 = 0.06;
/// Our peak memory against the peer's, at most.
const BAR_PEAK: f64 = 0.7;

/// A row.
pub(crate) struct Row {
    /// Its name, and that of its case.
    pub(crate) name: &'static str,
    /// What ours is compared with.
    pub(crate) peer: Peer,
    /// Rounds, in which both sides run once.
    pub(crate) rounds: usize,
    /// Whether the machine must multiply bf16.
    pub(crate) bf16: bool,
    /// Largest relative distance (L2) of the results.
    pub(crate) same: f64,
    /// What it is held to.
    pub(crate) bars: Bars,
    /// A row of its own for the peaks of memory, with its name and least ratio; the peer's is the lowest of its candidates'.
    pub(crate) memory: Option<(&'static str, f64)>,
}

/// What ours is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// Variants of the case in `bench/peer.py`, each with the allocator's defaults and with the settings that ours
    /// makes. All are tried and the fastest is measured; the row names it.
    Python(&'static [&'static str]),
    /// A case of `bench/peer.py` that starts a process of its own each time.
    PythonCold(&'static str),
    /// Another case of ours.
    Own(&'static str),
    /// The size of the model's file: ours is not time but resident memory.
    FileSize,
}

/// What a row is held to; a row meets its bar by its ratio or by its part of the floor.
#[derive(Clone, Copy)]
pub(crate) struct Bars {
    /// Least ratio.
    pub(crate) ratio: Option<f64>,
    /// Least part of the floor.
    pub(crate) floor: Option<f64>,
    /// Largest ratio of peak memory, ours over theirs.
    pub(crate) peak: Option<f64>,
}

impl Bars {
    const NONE: Self = Self { ratio: None, floor: None, peak: None };

    const fn ratio(ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..Self::NONE }
    }

    const fn or_floor(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }

    const fn peak(self) -> Self {
        self.peak_of(BAR_PEAK)
    }

    const fn peak_of(self, peak: f64) -> Self {
        Self { peak: Some(peak), ..self }
    }
}

impl Row {
    const fn new(name: &'static str, peer: Peer, rounds: usize, bars: Bars) -> Self {
        Self { name, peer, rounds, bf16: false, same: SAME_F32, bars, memory: None }
    }

    const fn in_bf16(self) -> Self {
        Self { bf16: true, same: SAME_BF16, ..self }
    }
}

/// `runtime`: one forward pass, generation and gradients of SmolLM2-135M on two threads.
const RUNTIME: &[Row] = &[
    Row::new("prefill_8x128_f32", Peer::Python(&["forward"]), 15, Bars::ratio(1.2).or_floor(0.88).peak()),
    Row::new("decode_b1_f32", Peer::Python(&["loop", "generate"]), 15, Bars::ratio(2.2).peak()),
    Row::new("decode_b16_f32", Peer::Python(&["loop", "generate"]), 15, Bars::ratio(1.6).peak()),
    Row::new("fwdbwd_8x64_f32", Peer::Python(&["autograd"]), 15, Bars::ratio(1.3).or_floor(0.8).peak()),
    Row::new("prefill_8x128_bf16", Peer::Python(&["forward"]), 15, Bars::ratio(0.9).peak()).in_bf16(),
    Row::new("decode_b16_bf16", Peer::Python(&["loop", "generate"]), 15, Bars::ratio(1.4).peak()).in_bf16(),
    Row::new("prefill_8x128_tl_f32", Peer::Python(&["forward", "last"]), 9, Bars::NONE.peak()),
    Row::new("capture_all_layers_f32", Peer::Own("prefill_8x128_f32"), 25, Bars::ratio(0.97)),
    Row::new("capture_all_layers_tl_f32", Peer::Python(&["forward", "last"]), 9, Bars::NONE.peak()),
    // At most 0.3 of their time.
    Row::new("first_token_cold", Peer::PythonCold("generate"), 5, Bars::ratio(1.0 / 0.3)),
    // At most 1.15 times the file.
    Row::new("stored_resident", Peer::FileSize, 3, Bars::ratio(1.0 / 1.15)),
    Row::new("lens_all_layers", Peer::Own("lens_by_layer"), 11, Bars::NONE),
    Row::new("load_stacks", Peer::Own("load_per_layer"), 11, Bars::NONE),
];

/// `sae`: a step of dictionary training, and encoding, against the fastest of SAELens and dictionary_learning.
const SAE: &[Row] = &[
    Row::new("train_topk_768x16384", TOPK_PEERS, 7, Bars::ratio(6.0).peak_of(0.5)),
    Row::new("train_batchtopk_768x16384", TOPK_PEERS, 7, Bars::ratio(6.0).peak_of(0.5)),
    Row::new("train_topk_576x18432", TOPK_PEERS, 7, Bars::ratio(6.0).peak_of(0.5)),
    Row::new("train_relu_768x16384", SAE_PEERS, 7, Bars::ratio(1.5).peak_of(0.5)),
    Row::new("train_relu-dense_768x16384", SAE_PEERS, 7, Bars::NONE.peak_of(0.5)),
    Row::new("train_jumprelu_768x16384", SAE_PEERS, 7, Bars::ratio(1.5).peak_of(0.5)),
    Row::new("encode_topk_768x16384", TOPK_PEERS, 11, Bars::ratio(1.5)),
    Row::new("encode_jumprelu_768x16384", SAE_PEERS, 11, Bars::ratio(1.5)),
    // One pass for four costs at most 1.1 times what a pass for each does.
    Row::new("several_one_pass", Peer::Own("several_apart"), 5, Bars::ratio(1.0 / 1.1)),
];
const SAE_PEERS: Peer = Peer::Python(&["saelens", "dictionary_learning"]);
/// Where SAELens has a way of its own for sparse codes.
const TOPK_PEERS: Peer = Peer::Python(&["saelens", "saelens_sparse", "dictionary_learning"]);

/// `lab`: a step of training the organism against the same model in PyTorch.
const LAB: &[Row] = &[Row::new("train_organism_32x128_f32", Peer::Python(&["fused", "foreach"]), 11, Bars::ratio(1.2))];

/// `harvest`: from tokens to the dashboards of 1,024 latents, with the model in f32 on both sides, and with ours in bf16 against the
/// faster of theirs. The largest activations are compared, of which a few are on first tokens, which ours does not count.
const HARVEST: &[Row] = &[
    Row {
        same: SAME_LARGEST,
        memory: Some(("dashboards_1k_128k_memory", 2.0)),
        ..Row::new("dashboards_1k_128k", Peer::Python(&["sae_dashboard"]), 3, Bars::ratio(3.0))
    },
    Row {
        memory: Some(("dashboards_1k_128k_bf16_memory", 2.0)),
        ..Row::new(
            "dashboards_1k_128k_bf16",
            Peer::Python(&["sae_dashboard", "sae_dashboard_bf16"]),
            3,
            Bars::ratio(3.0),
        )
        .in_bf16()
    },
];
const SAME_LARGEST: f64 = 0.02;

/// The benchmarks by name.
pub(crate) const BENCHES: &[(&str, &[Row])] = &[("runtime", RUNTIME), ("sae", SAE), ("lab", LAB), ("harvest", HARVEST)];
