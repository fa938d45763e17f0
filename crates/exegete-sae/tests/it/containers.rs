//! Files of arrays: read against what NumPy and PyTorch put into them (`refs/containers`); damage and programs refused.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use exegete_sae::containers::{Arrays, Element, from_bytes, read};
use exegete_testkit::{Golden, refs_dir};
use proptest::prelude::*;

fn file(name: &str) -> PathBuf {
    refs_dir().join("containers").join(name)
}

#[track_caller]
fn same(golden: &Golden, prefix: &str, found: &Arrays) {
    let names: Vec<&str> = golden.names().filter_map(|n| n.strip_prefix(prefix)).collect();
    assert_eq!(names.len(), found.arrays.len(), "{names:?} against {:?}", found.arrays.keys());
    for name in names {
        let array = found.arrays.get(name).unwrap_or_else(|| panic!("{name} is missing"));
        let key = format!("{prefix}{name}");
        // The golden holds a single number as an array of one.
        let shape = if array.shape.is_empty() { vec![1] } else { array.shape.clone() };
        assert_eq!(shape, golden.shape(&key), "{name}");
        assert_eq!(array.values, golden.f32(&key), "{name}");
    }
}

#[test]
fn arrays_are_those_that_were_saved() {
    let golden = Golden::load("containers/golden.safetensors");
    for (name, prefix) in [
        ("plain.npz", "plain."),
        ("packed.npz", "plain."),
        ("state.pt", "state."),
        ("nested.pt", "nested."),
        ("protocol4.pt", "nested."),
    ] {
        same(&golden, prefix, &read(&file(name)).unwrap());
    }
    let one = read(&file("one.npy")).unwrap();
    assert_eq!(one.arrays[""].values, golden.f32("plain.W_enc"));
    let ours = read(&file("golden.safetensors")).unwrap();
    assert_eq!(ours.arrays["state.weight"].values, golden.f32("state.weight"));
}

#[test]
fn elements_and_facts_are_told() {
    let state = read(&file("state.pt")).unwrap();
    assert_eq!(state.arrays["brain"].element, Element::Bf16);
    assert_eq!(state.arrays["half"].element, Element::F16);
    assert_eq!(state.arrays["k"].element, Element::I64);
    assert!(state.arrays["k"].shape.is_empty() && state.arrays["k"].values == [32.0]);
    let facts = read(&file("nested.pt")).unwrap().facts;
    assert_eq!(facts["large"], 1u64 << 40);
    assert_eq!(facts["negative"], -70000);
    assert_eq!((&facts["rate"], &facts["name"]), (&0.25.into(), &"topk".into()));
    assert!(facts["centred"] == true && !facts.contains_key("nothing") && !facts.contains_key("device"));
}

#[test]
fn what_could_run_a_program_is_refused() {
    for (name, reason) in
        [("evil.pt", "__builtin__.print"), ("objects.npz", "Python objects"), ("old.pt", "save it again")]
    {
        let error = read(&file(name)).err().unwrap().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
    let text = from_bytes(b"{\"not\": \"arrays\"}").unwrap_err();
    assert!(text.contains("neither"), "{text}");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    for name in ["plain.npz", "one.npy", "state.pt", "golden.safetensors"] {
        let bytes = fs::read(file(name)).unwrap();
        for len in [1, 7, 40, bytes.len() / 2, bytes.len() - 1] {
            assert!(from_bytes(&bytes[..len]).is_err(), "{name} at {len} bytes");
        }
    }
}

/// An archive of entries, packed as well as they can be.
fn packed(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_would_take_far_more_memory_than_the_file_is_refused() {
    // Each of these entries alone is allowed; together they are not.
    let mut zeros: Vec<(String, Vec<u8>)> = (0..8).map(|i| (format!("a/data/{i}"), vec![0; 1 << 19])).collect();
    zeros.push(("a/data.pkl".into(), b"\x80\x02}.".to_vec()));
    let error = from_bytes(&packed(&zeros)).unwrap_err();
    assert!(error.contains("times its archive's length"), "{error}");
    let of_program = |program: Vec<u8>| from_bytes(&packed(&[("a/data.pkl".into(), program)])).unwrap_err();
    // A value for each byte of a program that is packed into nothing.
    let error = of_program([&b"\x80\x02"[..], &vec![b'N'; 1 << 19], b"."].concat());
    assert!(error.contains("data.pkl"), "{error}");
    // A long key, before the name of everything that lies in it.
    let text = |n: usize| [&b"X"[..], &(n as u32).to_le_bytes(), &vec![b'k'; n]].concat();
    let error = of_program([&b"\x80\x02}"[..], &text(300), b"K\x01s."].concat());
    assert!(error.contains("a name of 300 bytes"), "{error}");
    // A text that is written once and kept a hundred times.
    let again: Vec<u8> = (1..100).flat_map(|i| [b'K', i, b'h', 0]).collect();
    let error = of_program([&b"\x80\x02}(K\x00"[..], &text(4000), b"q\x00", &again, b"u."].concat());
    assert!(error.contains("without end"), "{error}");
}

#[test]
fn archives_that_could_be_read_in_two_ways_are_refused() {
    let entry = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let program = entry("a/data.pkl", b"\x80\x02}.");
    let two = [program.clone(), entry("x/a/data.pkl", b"\x80\x02}.")];
    assert!(from_bytes(&packed(&two)).unwrap_err().contains("second program"));
    let two = [program, entry("a/data/0", b"1234"), entry("b/data/0", b"5678")];
    assert!(from_bytes(&packed(&two)).unwrap_err().contains("second storage"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// A changed byte is refused or read; it never panics, and no array is larger than its shape.
    #[test]
    fn changed_bytes_never_panic(which in 0usize..5, changes in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4)) {
        let name = ["plain.npz", "one.npy", "nested.pt", "golden.safetensors", "protocol4.pt"][which];
        let mut bytes = fs::read(file(name)).unwrap();
        for (at, byte) in changes {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(found) = from_bytes(&bytes) {
            for (name, array) in &found.arrays {
                prop_assert_eq!(array.values.len(), array.shape.iter().product::<usize>(), "{}", name);
            }
        }
    }
}
