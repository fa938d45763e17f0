//! Identities of the lens, on tiny models of several families.

use exegete_methods::lens::{attribute, lens};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_tensor::{Tape, f32s};
use exegete_testkit::{Golden, refs_dir};

#[test]
fn the_last_layers_lens_is_the_model_and_attributions_sum_to_the_logit() {
    for case in ["gpt2", "gpt_neox", "llama2", "gemma2", "olmo2", "qwen3_moe"] {
        let model = Model::open(&refs_dir().join("families").join(case)).unwrap();
        let ids = Golden::load(format!("families/{case}/golden.safetensors")).tokens("tokens")[..12].to_vec();
        let logits = model.run(&Tape::new(), &Batch::one(&ids), None, &mut Hooks::none(), Logits::All).unwrap();
        let logits = f32s(logits.unwrap().tensor()).unwrap().to_vec();
        let found = lens(&model, &ids, 3, Hooks::none()).unwrap();
        assert_eq!(found.cells.len(), model.spec.n_layers + 1, "{case}");
        for (position, cell) in found.cells.last().unwrap().iter().enumerate() {
            let row = &logits[position * 61..(position + 1) * 61];
            let best = (0..61).fold(0, |b, i| if row[i] > row[b] { i } else { b });
            let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            assert_eq!(cell.top[0].0 as usize, best, "{case}");
            assert!((cell.top[0].1 - f64::from(row[best]).exp() / total).abs() < 1e-6, "{case}");
            assert!(cell.kl_to_final.abs() < 1e-9 && cell.kl_to_other.unwrap() > 1e-3, "{case}: {cell:?}");
            assert_eq!(cell.rank_of_next.is_none(), position == 11);
        }
        assert!(found.cells[0].iter().all(|c| c.kl_to_final > 0.0 && c.entropy > 0.0));
        let a = attribute(&model, &ids, 7, Hooks::none()).unwrap();
        let sum = a.shares.iter().map(|s| s.logit).sum::<f64>() + a.constant;
        assert!((sum - a.logit).abs() < 1e-4, "{case}: {sum} {}", a.logit);
        let capped = model.spec.logit_soft_cap.map_or(a.logit, |c| f64::from(c) * (a.logit / f64::from(c)).tanh());
        let want = f64::from(logits[11 * 61 + 7]);
        assert!((capped - want).abs() < 1e-4, "{case}: {capped} {want}");
        assert_eq!(a.shares.len(), 1 + 2 * model.spec.n_layers);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let model = Model::open(&refs_dir().join("families/gpt2")).unwrap();
    assert!(lens(&model, &[1, 2], 0, Hooks::none()).unwrap_err().to_string().contains("--top"));
    assert!(attribute(&model, &[1, 2], 61, Hooks::none()).unwrap_err().to_string().contains("61"));
}
