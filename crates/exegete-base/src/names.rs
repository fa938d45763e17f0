//! Names that were mistyped.

/// The `n` names most like `name`, best first.
pub fn nearest(name: &str, candidates: impl IntoIterator<Item = impl AsRef<str>>, n: usize) -> Vec<String> {
    let likeness = |candidate: String| (strsim::jaro_winkler(name, &candidate), candidate);
    let mut scored: Vec<_> = candidates.into_iter().map(|candidate| likeness(candidate.as_ref().to_owned())).collect();
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().take(n).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_comes_first() {
        let names = ["blocks.3.hook_mlp_out", "blocks.3.hook_resid_post", "blocks.3.hook_resid_pre"];
        assert_eq!(
            nearest("blocks.3.hook_resid_pst", names, 2),
            ["blocks.3.hook_resid_post", "blocks.3.hook_resid_pre"]
        );
        assert!(nearest("x", [""; 0], 2).is_empty());
    }
}
