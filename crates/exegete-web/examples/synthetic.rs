//! Serves a made-up run, to look at the pages while working on them: `cargo run -p exegete-web --example synthetic`.
#![allow(clippy::print_stdout)] // The address is all it says.

#[path = "../tests/it/fixture.rs"]
mod fixture;

fn main() -> Result<(), exegete_web::WebError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fixture::make_run(dir.path());
    let addr = ([127, 0, 0, 1], 8617).into();
    exegete_web::serve(addr, (None, Vec::new()), exegete_web::Dashboard::open(dir.path())?, |addr| {
        println!("http://{addr}")
    })
}
