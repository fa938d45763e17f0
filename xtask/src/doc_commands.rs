//! Commands shown in the documents are run: every `sh` or `console` block after a line `<!-- test -->`.
//!
//! In a `console` block the lines that begin with `$ ` are the commands; in an `sh` block all are. A block runs
//! in a fresh folder with the debug binary on the path.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::{check, command, root, target};

/// Runs the marked blocks of README.md and docs/*.md.
pub(crate) fn run() -> Result<()> {
    let blocks = marked_blocks()?;
    if blocks.is_empty() {
        return Ok(());
    }
    check(&mut command("cargo", &["build", "--quiet", "-p", "exegete"]))?;
    let path = format!("{}:{}", target()?.join("debug").display(), std::env::var("PATH").unwrap_or_default());
    for (page, script) in blocks {
        let folder = tempfile::tempdir()?;
        let mut bash = command("bash", &["-euo", "pipefail", "-c", &script]);
        check(bash.current_dir(folder.path()).env("PATH", &path))
            .with_context(|| format!("{} shows:\n{script}", page.display()))?;
    }
    Ok(())
}

fn marked_blocks() -> Result<Vec<(PathBuf, String)>> {
    let mut pages = vec![root().join("README.md")];
    if let Ok(folder) = std::fs::read_dir(root().join("docs")) {
        pages.extend(
            folder
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    pages.sort();
    let mut blocks = Vec::new();
    for page in pages.into_iter().filter(|page| page.is_file()) {
        let text = std::fs::read_to_string(&page)?;
        blocks.extend(scripts(&text).into_iter().map(|script| (page.clone(), script)));
    }
    Ok(blocks)
}

/// The commands of the marked blocks of one page.
fn scripts(page: &str) -> Vec<String> {
    let mut scripts = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "<!-- test -->" {
            continue;
        }
        let Some(fence) = lines.next().and_then(|line| line.trim().strip_prefix("```")) else { continue };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        let commands: Vec<&str> = match fence {
            "console" => block.filter_map(|line| line.strip_prefix("$ ")).collect(),
            _ => block.collect(),
        };
        scripts.push(commands.join("\n"));
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::scripts;

    #[test]
    fn only_marked_blocks_are_taken() {
        let page = "```sh\nrm x\n```\n<!-- test -->\n```console\n$ exegete --help\nUsage\n```\n<!-- test -->\n```sh\na\nb\n```\n";
        assert_eq!(scripts(page), ["exegete --help", "a\nb"]);
    }
}
