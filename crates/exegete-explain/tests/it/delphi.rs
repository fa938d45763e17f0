//! Verdicts, marks and numbers are delphi's on the same answers and activations (`refs/delphi_scores`).

use exegete_base::DocId;
use exegete_base::ranks::pearson;
use exegete_explain::examples::{Excerpt, marked};
use exegete_explain::statistics::{Judged, auroc, balanced_accuracy};
use exegete_testkit::refs_dir;
use serde_json::Value;

fn golden() -> Value {
    let path = refs_dir().join("delphi_scores/golden.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn lists_of_answers_are_read_as_delphi_reads_them() {
    let golden = golden();
    let answers = golden["answers"].as_array().unwrap();
    assert!(answers.len() >= 8);
    for answer in answers {
        let want: Vec<Option<f64>> =
            answer["verdicts"].as_array().unwrap().iter().map(|v| v.as_bool().map(f64::from)).collect();
        let got = super::server::verdicts_of(answer["text"].as_str().unwrap(), want.len());
        assert_eq!(got, want, "{answer}");
    }
}

#[test]
fn areas_and_accuracies_are_those_of_delphi() {
    let golden = golden();
    let (labels, values, said) = (numbers(&golden["labels"]), numbers(&golden["values"]), numbers(&golden["said"]));
    let judged = |values: &[f64]| -> Vec<Judged> {
        values.iter().zip(&labels).map(|(value, label)| Judged { value: *value, fires: *label > 0.5 }).collect()
    };
    let near = |a: f64, b: &Value| assert!((a - b.as_f64().unwrap()).abs() < 1e-12, "{a} {b}");
    near(auroc(&judged(&values)), &golden["auc"]);
    near(balanced_accuracy(&judged(&said), 0.5), &golden["balanced_accuracy"]);
    // Of yes and no alone the area is the balanced accuracy.
    near(auroc(&judged(&said)), &golden["balanced_accuracy"]);
    let of = &golden["simulation"];
    let pairs: Vec<(f64, f64)> = numbers(&of["true"]).into_iter().zip(numbers(&of["simulated"])).collect();
    near(pearson(&pairs), &of["correlation"]);
}

#[test]
fn tokens_are_marked_as_delphi_marks_them() {
    let golden = golden();
    for of in golden["marks"].as_array().unwrap() {
        let values: Vec<f32> = numbers(&of["activations"]).into_iter().map(|v| v as f32).collect();
        let tokens = of["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().as_bytes().to_vec());
        let (ids, middle) = (vec![0; values.len()], 0);
        let excerpt = Excerpt { doc: DocId(0), window: 0, ids, values, middle, level: None };
        assert_eq!(marked(tokens, |i| excerpt.is_strong(i)), of["text"].as_str().unwrap());
    }
}
