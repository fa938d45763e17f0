use exegete_lab::language::*;
fn main() {
    let lang = Language::new();
    let seed: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    for k in 0..KINDS_OF_DOCUMENTS.len() {
        for i in 0..2 {
            let d = lang.document_of(k, seed, i, Split::Train);
            println!("=== {} visible {:.1} hidden {:.1} chars {} spans {}\n{}", KINDS_OF_DOCUMENTS[k].name, d.visible_nats, d.hidden_nats, d.text.len(), d.spans.len(), d.text);
        }
    }
    println!("{} concepts", lang.concepts().all().len());
    let t = std::time::Instant::now();
    let (mut c, mut n, mut nats) = (0usize, 0usize, 0.0);
    for i in 0..20000 { let d = lang.document(seed, i, Split::Train); c += d.text.len(); n += d.spans.len(); nats += d.visible_nats + d.hidden_nats; }
    println!("{c} chars {n} spans {:.3} nats a char, {:.2} s", nats / c as f64, t.elapsed().as_secs_f64());
}
