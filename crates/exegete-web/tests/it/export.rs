//! Pages that open from a file.

use std::collections::BTreeMap;

use exegete_web::{MOST_IN_A_FILE, StaticPages};

use crate::fixture::{HOSTILE, N_LATENTS, make_run};

#[test]
fn a_folder_of_pages_needs_no_server_and_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let pages = StaticPages::open(dir.path(), None).unwrap();
    let latents: Vec<u32> = pages.latents().collect();
    assert!(latents.len() == N_LATENTS as usize && latents.len() <= MOST_IN_A_FILE);
    assert!(pages.has(0) && !pages.has(N_LATENTS));
    let mut files = BTreeMap::new();
    let take = |name: &str, text: &str| {
        assert!(files.insert(name.to_owned(), text.to_owned()).is_none(), "{name} is written twice");
        Ok(())
    };
    pages.folder(&latents, take).unwrap();
    assert_eq!(files.len(), 1 + 4 + N_LATENTS as usize, "the sheet, the list in four orders, a page a latent");
    let mut n_hostile = 0;
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".html")) {
        assert!(!text.contains(HOSTILE) && !text.contains("<script") && !text.contains(" style="), "{name}");
        assert!(text.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'"), "{name}");
        n_hostile += text.matches("&lt;script&gt;alert").count();
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let target = match link.strip_prefix("../") {
                Some(up) => up.to_owned(),
                None if folder.is_empty() => link.to_owned(),
                None => format!("{folder}/{link}"),
            };
            assert!(files.contains_key(&target), "{name} leads to {target}");
        }
    }
    assert!(n_hostile > 100, "hostile text stands {n_hostile} times as text");
    let firing = |name: &str| files[name].find("latent/0.html").unwrap() < files[name].find("latent/179.html").unwrap();
    assert!(firing("index.html") && firing("latent-1.html"), "by rate the silent latent comes last");
    let values = files["latent/0.html"].matches("tabindex=\"0\"").count();
    assert!(
        values > 20 && !files["latent/0.html"].contains("data-value=\"0\""),
        "{values} tokens tell their activation"
    );
    assert!(files["latent/179.html"].contains("fired on none of the tokens"));
    assert!(files["explanation-1.html"].find("harbours").unwrap() < files["explanation-1.html"].find("royal").unwrap());
}

#[test]
fn a_single_file_holds_its_latents_and_its_sheet() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let page = StaticPages::open(dir.path(), None).unwrap().single(&[3, 12]).unwrap();
    assert!(page.contains("id=\"latent-3\"") && page.contains("id=\"latent-12\"") && !page.contains("id=\"latent-4\""));
    assert!(page.contains("<style>") && page.contains(".example") && !page.contains("<link"));
    assert!(!page.contains(HOSTILE) && !page.contains("<script"));
    // What it links to is in it.
    for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(["#latent-3", "#latent-12"].contains(&link), "{link}");
    }
}
