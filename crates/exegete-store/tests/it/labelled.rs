//! Labelled documents: what is written is read, and spans that do not fit are damage.

use exegete_store::labelled::{read_concepts, read_labelled, write_concepts, write_labelled};
use exegete_store::{ConceptRow, LabelledDocument, TextOptions, open_corpus, write_atomic};

fn document(text: &str, spans: Vec<[u32; 3]>) -> LabelledDocument {
    LabelledDocument {
        text: text.into(),
        kind: "story".into(),
        seed: 7,
        index: 9,
        visible_nats: 1.5,
        hidden_nats: 0.25,
        spans,
    }
}

#[test]
fn documents_and_concepts_come_back_and_are_a_corpus() {
    let dir = tempfile::tempdir().unwrap();
    let (path, names) = (dir.path().join("documents.parquet"), dir.path().join("concepts.parquet"));
    let rows = [document("The dog slept.", vec![[4, 7, 0], [8, 13, 1]]), document("été", vec![[0, 5, 1]])];
    write_atomic(&path, |sink| write_labelled(sink, &rows)).unwrap();
    assert_eq!(read_labelled(&path).unwrap(), rows);
    let corpus = open_corpus(&[path.to_string_lossy().into_owned()], &TextOptions::default()).unwrap();
    let texts: Vec<String> = corpus.documents().map(|d| d.unwrap().text).collect();
    assert_eq!(texts, ["The dog slept.", "été"]);
    let concepts = [("word:dog", Some(1)), ("kind:mammal", None)].map(|(name, parent)| ConceptRow {
        name: name.into(),
        reach: "token".into(),
        parent,
    });
    write_atomic(&names, |sink| write_concepts(sink, &concepts)).unwrap();
    assert_eq!(read_concepts(&names).unwrap(), concepts);
    let mixed = read_labelled(&names).err().unwrap().to_string();
    assert!(mixed.contains("labelled-documents") && mixed.contains("concepts"), "{mixed}");
}

#[test]
fn spans_that_are_no_stretches_of_their_text_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("documents.parquet");
    // Beyond the end, empty, backwards, through the middle of a character.
    for span in [[0, 99, 0], [2, 2, 0], [3, 1, 0], [0, 1, 0]] {
        write_atomic(&path, |sink| write_labelled(sink, &[document("été", vec![span])])).unwrap();
        let error = read_labelled(&path).err().unwrap().to_string();
        assert!(error.contains("documents.parquet") && error.contains("document 0"), "{span:?}: {error}");
    }
}
