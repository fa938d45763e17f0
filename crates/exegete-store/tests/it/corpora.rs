//! Corpora: records, ids, and an error that names the place for every bad file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use exegete_base::DocId;
use exegete_store::{Document, StoreError, TextOptions, open_corpus};
use parquet::arrow::ArrowWriter;

fn spec(path: &Path) -> Vec<String> {
    vec![path.to_string_lossy().into_owned()]
}

fn documents(path: &Path, options: &TextOptions) -> Result<Vec<Document>, StoreError> {
    open_corpus(&spec(path), options)?.documents().collect()
}

fn options(record_bytes: usize) -> TextOptions {
    TextOptions { record_bytes, ..TextOptions::default() }
}

fn check_error(file: &str, content: &[u8], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(file), content).unwrap();
    let error = documents(dir.path(), &TextOptions::default()).unwrap_err().to_string();
    for part in expected.iter().chain(&[file]) {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn a_text_file_is_cut_at_blank_lines_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    let text = "one\n\ntwo two\n \t\nthree\nthree\n\n\n\nfour";
    fs::write(&path, text).unwrap();
    let found = documents(&path, &options(6)).unwrap();
    let texts: Vec<&str> = found.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["one\n\ntwo two\n \t\n", "three\nthree\n\n", "\n\nfour"]);
    assert_eq!(texts.concat(), text);
    assert_eq!(documents(&path, &options(0)).unwrap().len(), 1);
}

#[test]
fn directories_are_searched_in_order_and_blank_records_keep_their_number() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("b.jsonl"), "{\"text\":\"b0\"}\n{\"text\":\" \"}\n\n{\"text\":\"b3\"}").unwrap();
    fs::write(dir.path().join("sub/a.txt"), b"\xef\xbb\xbfbom").unwrap();
    fs::write(dir.path().join("SOURCE.md"), "not text").unwrap();
    fs::write(dir.path().join(".hidden.txt"), "hidden").unwrap();
    let found = documents(dir.path(), &TextOptions::default()).unwrap();
    let expected = [(0, 0, "b0"), (0, 3, "b3"), (1, 0, "bom")];
    let expected: Vec<Document> =
        expected.iter().map(|&(s, r, t)| Document { id: DocId::new(s, r), text: t.into() }).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_file_named_twice_counts_once_and_globs_match() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.txt"), "x").unwrap();
    fs::write(dir.path().join("y.txt"), "y").unwrap();
    let specs = ["", "/x.txt", "/*.txt"].map(|end| format!("{}{end}", dir.path().display()));
    let corpus = open_corpus(&specs, &TextOptions::default()).unwrap();
    assert_eq!(corpus.sources.len(), 2);
    assert_eq!(corpus.sources[0].sha256, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
}

#[test]
fn parquet_text_of_every_string_type_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let texts = [Some("one"), None, Some("three")];
    let columns: [ArrayRef; 3] = [
        Arc::new(StringArray::from_iter(texts)),
        Arc::new(LargeStringArray::from_iter(texts)),
        Arc::new(StringViewArray::from_iter(texts)),
    ];
    for (i, column) in columns.into_iter().enumerate() {
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("id", number), ("text", column)]).unwrap();
        let path = dir.path().join(format!("{i}.parquet"));
        let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let found = documents(&path, &TextOptions::default()).unwrap();
        assert_eq!(
            found.iter().map(|d| (d.id.record_idx(), d.text.as_str())).collect::<Vec<_>>(),
            [(0, "one"), (2, "three")]
        );
        let other = |column: &str| TextOptions { parquet_column: column.into(), ..TextOptions::default() };
        let missing = documents(&path, &other("body")).unwrap_err().to_string();
        assert!(missing.contains("\"body\" is missing") && missing.contains("id (Int32)"), "{missing}");
        assert!(documents(&path, &other("id")).unwrap_err().to_string().contains("not text"));
    }
}

#[test]
fn bad_files_are_named_with_the_place() {
    check_error("a.txt", b"fine\xff", &["not UTF-8", "offset 4"]);
    check_error("a.txt", b" \n\n \n", &["no text"]);
    check_error("a.jsonl", b"{\"text\":\"x\xff\"}\n", &["not UTF-8", "offset 10"]);
    check_error("a.jsonl", b"\n{\"text\": \"x\"", &["line 2", "malformed JSON"]);
    check_error("a.jsonl", b"[1]\n", &["line 1", "not a JSON object"]);
    check_error("a.jsonl", b"{\"body\":\"x\",\"n\":1}\n", &["line 1", "\"text\" is missing", "body"]);
    check_error("a.jsonl", b"{\"text\":1}\n", &["line 1", "\"text\" is not a string", "(none)"]);
    check_error("a.parquet", b"PAR1 no PAR1", &["damaged"]);
}

#[test]
fn the_stream_ends_at_the_first_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.jsonl"), "{\"text\":\"x\"}\n{\n{\"text\":\"y\"}\n").unwrap();
    let corpus = open_corpus(&spec(dir.path()), &TextOptions::default()).unwrap();
    let outcomes: Vec<bool> = corpus.documents().map(|d| d.is_ok()).collect();
    assert_eq!(outcomes, [true, false]);
}

#[test]
fn specs_that_match_nothing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.md"), "x").unwrap();
    let error = |end: &str| {
        let spec = format!("{}{end}", dir.path().display());
        open_corpus(&[spec], &TextOptions::default()).unwrap_err()
    };
    assert!(matches!(error(""), StoreError::NoFiles { .. }));
    assert!(matches!(error("/*.txt"), StoreError::NoFiles { .. }));
    assert!(matches!(error("/[.txt"), StoreError::NoFiles { .. }));
    assert!(matches!(error("/a.md"), StoreError::FileKind { .. }));
}
