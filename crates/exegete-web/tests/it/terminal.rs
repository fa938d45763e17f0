//! A latent in the terminal.

use exegete_web::{Colours, Dashboard, latent_lines};

use crate::fixture::{make_hostile_run, make_run};

#[test]
fn the_terminal_shows_what_the_page_does() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let dashboard = Dashboard::open(dir.path()).unwrap();
    let detail = dashboard.latent("", 3, "levels").unwrap();
    let lines = latent_lines(&detail, Colours(false));
    let text = lines.join("\n");
    for part in
        ["latent 3", "fires on", "95\u{202f}% interval", "promotes", "suppresses", "neighbours", "Firings by level"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let examples: usize = detail.levels.iter().map(|level| level.examples.len()).sum();
    let shown = lines.iter().filter(|line| line.contains('[') && line.starts_with("   ")).count();
    assert_eq!(shown, examples + detail.top_examples.len(), "an example a line, its own token in brackets: {text}");
    assert!(!text.contains('\u{1b}'));
    let coloured = latent_lines(&detail, Colours(true)).join("\n");
    assert!(
        coloured.contains("\u{1b}[48;5;203m") || coloured.contains("48;5;203"),
        "the strongest has the deepest shade"
    );

    let groups = dashboard.latent("", 3, "quantiles").unwrap();
    assert!(latent_lines(&groups, Colours(false)).join("\n").contains("Firings by quantiles"));
    let none = dashboard.latent("", 999, "levels").unwrap_err().to_string();
    assert!(none.contains("999") && none.contains("0 to 179"), "{none}");
    assert!(dashboard.latent("nosuch", 1, "levels").is_err());
    let dead = dashboard.latent("", 179, "levels").unwrap();
    assert!(latent_lines(&dead, Colours(true)).len() > 2, "one that never fires is shown too");
}

#[test]
fn no_text_of_a_run_reaches_the_terminal_as_an_order() {
    let dir = tempfile::tempdir().unwrap();
    make_hostile_run(dir.path());
    let dashboard = Dashboard::open(dir.path()).unwrap();
    for latent in 0..25 {
        for line in latent_lines(&dashboard.latent("", latent, "levels").unwrap(), Colours(false)) {
            let order =
                line.chars().find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
            assert_eq!(order, None, "latent {latent}: {line:?}");
        }
    }
}
