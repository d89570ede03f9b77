//! Every kind of fault, as a user sees it: `faults/NAME.yaml` and what is said of it.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use diolkos_api::{Fault, Problem, check, load, raw};

/// Compares with `faults/NAME.snap`, and sees to it that the fault is the one of that name.
fn golden(name: &str, faults: &[Fault]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("faults");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let text: Vec<_> = faults.iter().map(ToString::to_string).collect();
    settings.bind(|| insta::assert_snapshot!(name, text.join("\n")));
    let codes: BTreeSet<_> = faults.iter().map(|fault| fault.problem.code()).collect();
    assert!(codes.contains(name), "{name} is not among {codes:?}");
}

/// The names of the files with that extension in `faults`. Tests run in the folder of the crate.
fn names(extension: &str) -> BTreeSet<String> {
    fs::read_dir("tests/faults")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn in_files() {
    for name in names("yaml") {
        golden(
            &name,
            &load(&[format!("tests/faults/{name}.yaml").into()]).faults,
        );
    }
}

#[test]
fn of_files() {
    golden(
        "unreadable",
        &load(&[PathBuf::from("tests/faults/missing.yaml")]).faults,
    );
}

#[test]
fn in_a_cluster() {
    let spec: raw::RegistrySpec = serde_json::from_value(serde_json::json!({
        "consul": {"addresses": ["https://consul"], "token": {"file": "token"}, "tls": {"caFile": "/ca.pem"}},
    }))
    .unwrap();
    golden("relative-path", &check("web", &spec, None).unwrap_err());
}

#[test]
fn every_kind_of_fault_has_a_golden_file() {
    let known: BTreeSet<_> = Problem::CODES
        .iter()
        .map(|code| (*code).to_owned())
        .collect();
    assert_eq!(names("snap"), known);
}
