//! An adapter's safetensors file (SelfIE adapters): read, and asked for what it makes of a direction.
#![no_main]

use exegete_fuzz::memory::{self, Counting};
use exegete_fuzz::{start, write_seeds};
use exegete_methods::adapter::Adapter;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(
    init: {
        start();
        write_seeds(FORMS.iter().map(|(name, tensors)| ((*name).to_owned(), file(name, tensors))));
    },
    |data: &[u8]| {
        // The tensors as f32, twice as many bytes where they are stored in bf16, and the header's tables.
        let read = memory::bounded(16 * data.len() + (8 << 20), || Adapter::from_bytes(data));
        if let Ok(adapter) = read {
            let direction = vec![1.0; adapter.d.min(1 << 16)];
            let _ = adapter.apply(&direction);
            assert_eq!(Adapter::from_bytes(&adapter.to_bytes().unwrap()).as_ref(), Ok(&adapter));
        }
    }
);

/// Forms with their tensors, of width 4 and rank 2.
const FORMS: &[(&str, &[(&str, &[usize])])] = &[
    ("scale_only", &[("log_scale", &[1])]),
    ("scalar_affine", &[("log_scale", &[1]), ("bias", &[4])]),
    ("scalar_affine_plus_low_rank", &[("log_scale", &[1]), ("U", &[4, 2]), ("V", &[4, 2]), ("bias", &[4])]),
    ("low_rank_only", &[("U", &[4, 2]), ("V", &[4, 2]), ("bias", &[4])]),
    ("full_rank", &[("weight", &[4, 4]), ("bias", &[4])]),
];

/// A file of zeros.
fn file(form: &str, tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let config = serde_json::json!({"projection": {"type": form, "normalize_input": true, "low_rank_rank": 2}}).to_string();
    let mut header = serde_json::json!({"__metadata__": {"config_json": config, "model_dim": "4", "global_step": "3"}});
    let mut from = 0;
    for (name, shape) in tensors {
        let to = from + 4 * shape.iter().product::<usize>();
        header[*name] = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]});
        from = to;
    }
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.resize(bytes.len() + from, 0);
    bytes
}
