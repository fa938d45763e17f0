//! GGUF files of every family that llama.cpp writes (`refs/families_gguf`), and every block format (`refs/quants`).

use exegete_model::weights::quant::Encoding;
use exegete_model::{Batch, Hooks, LoadOptions, Logits, Model, Residence};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{Golden, assert_close, refs_dir};

#[test]
fn every_architecture_agrees_in_memory_and_as_stored() {
    let golden = Golden::load("families_gguf/golden.safetensors");
    let batch = Batch::uniform(golden.tokens("tokens"), golden.shape("tokens")[0]);
    let names: Vec<String> = golden.names().filter_map(|n| n.strip_suffix("/logits").map(str::to_owned)).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        let path = refs_dir().join(format!("families_gguf/{name}.gguf"));
        for residence in [Residence::F32, Residence::Stored] {
            let model = Model::open_with(&path, &LoadOptions { residence, ..LoadOptions::default() }).unwrap();
            let logits = model.run(&Tape::new(), &batch, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
            let want = golden.f32(&format!("{name}/logits"));
            assert_close(&format!("{name} {residence:?}"), &f32s(logits.tensor()).unwrap(), want, 1e-5);
        }
    }
}

#[test]
fn every_block_format_decodes_to_the_reference_bit_for_bit() {
    let golden = Golden::load("quants/golden.safetensors");
    let kinds: Vec<String> = golden.names().filter_map(|n| n.strip_suffix("/raw").map(str::to_owned)).collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
    for kind in kinds {
        let encoding = Encoding::by_name(&kind).unwrap_or_else(|| panic!("{kind} is not handled"));
        let want = golden.f32(&format!("{kind}/values"));
        let mut got = vec![f32::NAN; want.len()];
        encoding.decode(golden.bytes(&format!("{kind}/raw")), &mut got);
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{kind}: value {i} is {a}, the reference says {b}");
        }
    }
}
