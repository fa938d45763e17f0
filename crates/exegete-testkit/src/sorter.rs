//! minGPT's sorter of the data pack, whose weights and intermediate tensors are JSON with base64 inside.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// Values and shape of a tensor in a JSON file of the sorter.
///
/// # Panics
/// If there is no such tensor, or its bytes are not those of its shape.
#[track_caller]
pub fn sorter_tensor(file: &Value, name: &str) -> (Vec<f32>, Vec<usize>) {
    let tensor = &file[name];
    let shape: Vec<usize> = tensor["shape"]
        .as_array()
        .unwrap_or_else(|| panic!("no tensor {name}"))
        .iter()
        .map(|n| n.as_u64().unwrap() as usize)
        .collect();
    let bytes = base64(tensor["data"].as_str().unwrap());
    assert_eq!(bytes.len(), 4 * shape.iter().product::<usize>(), "{name}");
    (bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(), shape)
}

/// Reads a JSON file of the sorter.
///
/// # Panics
/// If it is missing or no JSON.
#[track_caller]
pub fn sorter_file(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Writes the sorter's weights as `model.safetensors` with its sizes as metadata. The safetensors copy in the data pack
/// lacks the biases of `c_attn`, so the model is made from the JSON that has them all.
///
/// # Panics
/// If the JSON is not the sorter's, or the folder cannot be written to.
#[track_caller]
pub fn write_sorter(model_json: &Path, to: &Path) {
    let file = sorter_file(model_json);
    let names: Vec<&String> =
        file.as_object().unwrap().keys().filter(|n| n.ends_with(".weight") || n.ends_with(".bias")).collect();
    let tensors: Vec<(Vec<u8>, Vec<usize>)> = names
        .iter()
        .map(|n| {
            let (values, shape) = sorter_tensor(&file, n);
            (values.iter().flat_map(|x| x.to_le_bytes()).collect(), shape)
        })
        .collect();
    let views = names
        .iter()
        .zip(&tensors)
        .map(|(n, (bytes, shape))| ((*n).clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let config = file["config"].as_object().unwrap();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let metadata = config.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
    std::fs::write(to.join("model.safetensors"), bytes).unwrap();
}

/// Decodes base64.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sixes = text.bytes().filter(|c| *c != b'=').map(|c| LETTERS.find(c as char).unwrap() as u32);
    let (mut bytes, mut held, mut n) = (Vec::new(), 0u32, 0);
    for six in sixes {
        (held, n) = (held << 6 | six, n + 6);
        if n >= 8 {
            n -= 8;
            bytes.push((held >> n) as u8);
            held &= (1 << n) - 1;
        }
    }
    bytes
}
