//! The command line, as a user sees it: help texts, tables, faults and exit codes, with golden files.

mod common;

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use common::{Diolkos, SOON, diolkos};
use diolkos_testkit::eventually;
use tempfile::TempDir;

const SERVICES: &str = "\
name: orders
instances:
- {id: orders-1, address: 10.0.0.1, port: 8080, protocol: http, version: v1, labels: {zone: a}}
- {id: orders-2, address: 10.0.0.2, port: 8081, protocol: http, version: v2, weight: 10}
- {id: orders-3, address: orders-3.example.org, port: 8080}
---
name: My_Service
instances:
- {id: m-1, address: 10.0.0.9, port: 9090}
---
name: broken
instances:
- {id: b-1, address: 10.0.0.10, port: 0}
";

/// A folder with a registry document and its services.
struct Files(TempDir);

impl Files {
    fn new(services: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("services"))?;
        fs::write(folder.path().join("services/all.yaml"), services)?;
        let files = Self(folder);
        let document = format!(
            "apiVersion: diolkos.io/v1alpha1\nkind: Registry\nmetadata:\n  name: files\nspec:\n  file:\n    path: {}\n  export:\n    host: \"{{service}}.mesh\"\n    namespace: shop\n",
            files.path("services").display()
        );
        fs::write(files.path("registry.yaml"), document)?;
        Ok(files)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[test]
fn help_texts() {
    let mut texts = String::new();
    for command in [
        "",
        "run",
        "check",
        "export",
        "explain",
        "diff",
        "status",
        "registries",
        "crds",
        "schema",
        "completions",
    ] {
        let args: Vec<_> = [command, "--help"]
            .into_iter()
            .filter(|a| !a.is_empty())
            .collect();
        let (code, out, error) = diolkos(&args);
        assert_eq!((code, error.as_str()), (0, ""), "{command}");
        texts.push_str(&format!("### diolkos {command}\n{out}\n"));
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn a_wrong_command_line_teaches() {
    let mut texts = String::new();
    for args in [
        &["rn"][..],
        &["run", "--to", "files"],
        &["export"],
        &["diff", "-f", "x", "--timeout", "soon"],
    ] {
        let (code, _, error) = diolkos(args);
        assert_eq!(code, 2, "{args:?}");
        texts.push_str(&format!("$ diolkos {}\n{error}\n", args.join(" ")));
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn export_prints_a_stream_of_documents() -> Result<()> {
    let files = Files::new(SERVICES)?;
    let (code, out, error) = diolkos(&["export", "-f", &files.arg("registry.yaml")]);
    assert_eq!((code, error.as_str()), (0, ""));
    insta::assert_snapshot!(out);
    Ok(())
}

#[test]
fn explain_tells_every_decision() -> Result<()> {
    let files = Files::new(SERVICES)?;
    let document = files.arg("registry.yaml");
    let (code, out, error) = diolkos(&["explain", "orders.mesh", "-f", &document]);
    assert_eq!((code, error.as_str()), (0, ""));
    let (_, refused, _) = diolkos(&["explain", "broken", "-f", &document]);
    insta::assert_snapshot!(format!(
        "{}\n{}",
        without_time(&out),
        without_time(&refused)
    ));

    for query in [
        "10.0.0.2",
        "orders-2",
        "orders",
        "files/orders",
        "orders.mesh.",
    ] {
        let (code, out, error) = diolkos(&["explain", query, "-f", &document, "-o", "json"]);
        assert_eq!(code, 0, "{query}: {error}");
        let found: serde_json::Value = serde_json::from_str(&out)?;
        assert_eq!(found[0]["host"], "orders.mesh", "{query}");
    }
    let (code, out, _) = diolkos(&["explain", "nothing", "-f", &document]);
    assert_eq!((code, out.as_str()), (1, ""));
    Ok(())
}

/// The first line ends in `(changed TIME)`.
fn without_time(text: &str) -> String {
    let (before, after) = text
        .split_once("(changed ")
        .expect("the time of the change");
    let (_, after) = after.split_once(')').expect("the end of the time");
    format!("{before}(changed AT){after}")
}

#[test]
fn diff_against_a_directory() -> Result<()> {
    let files = Files::new(SERVICES)?;
    let (document, target) = (
        files.arg("registry.yaml"),
        format!("directory:{}", files.arg("out")),
    );
    fs::create_dir(files.path("out"))?;
    let (code, out, error) = diolkos(&["diff", "-f", &document, "--to", &target]);
    assert_eq!((code, error.as_str()), (1, ""));
    insta::assert_snapshot!(out);
    let (code, _, error) = diolkos(&["export", "-f", &document, "--to", &target]);
    assert_eq!(code, 0, "{error}");
    let (code, out, _) = diolkos(&["diff", "-f", &document, "--to", &target]);
    assert_eq!((code, out.as_str()), (0, "nothing would change\n"));
    fs::write(
        files.path("services/all.yaml"),
        SERVICES.replace("version: v1", "version: v3"),
    )?;
    let (code, out, _) = diolkos(&["diff", "-f", &document, "--to", &target, "-o", "json"]);
    let changes: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!(
        (code, changes.as_array().map(Vec::len)),
        (1, Some(1)),
        "{changes}"
    );
    assert_eq!(changes[0]["change"], "change");
    Ok(())
}

#[test]
fn check_finds_faults_and_names_the_line() -> Result<()> {
    let files = Files::new("")?;
    let (code, out, _) = diolkos(&["check", &files.arg("registry.yaml")]);
    assert_eq!((code, out.as_str()), (0, "1 registry document: no fault\n"));
    let bad = fs::read_to_string(files.path("registry.yaml"))?.replace("{service}", "{servce}");
    fs::write(files.path("registry.yaml"), bad)?;
    let (code, out, _) = diolkos(&["check", &files.arg("registry.yaml")]);
    assert_eq!(code, 1);
    assert!(
        out.contains("registry.yaml:9:")
            && out.contains("spec.export.host")
            && out.contains("servce"),
        "{out}"
    );
    let (code, _, error) = diolkos(&["export", "-f", &files.arg("registry.yaml")]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("servce"), "{error}");
    Ok(())
}

/// The documents in README and docs are documents that work.
#[test]
fn the_documents_of_the_documentation_are_valid() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    let folder = tempfile::tempdir()?;
    let mut found = 0;
    for page in pages
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(page)?;
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if !block.contains("kind: Registry") {
                continue;
            }
            found += 1;
            let file = folder.path().join(format!("{found}.yaml"));
            fs::write(&file, block)?;
            let (code, out, _) = diolkos(&["check", &file.display().to_string()]);
            assert_eq!(code, 0, "{}: {out}", page.display());
        }
    }
    assert!(found >= 4, "only {found} documents found");
    for example in ["consul.yaml", "aeraki.yaml", "quickstart/registry.yaml"] {
        let file = root.join("examples").join(example);
        let (code, out, _) = diolkos(&["check", &file.display().to_string()]);
        assert_eq!(code, 0, "{example}: {out}");
    }
    Ok(())
}

#[test]
fn what_cannot_work_says_why() -> Result<()> {
    let files = Files::new("")?;
    let (code, _, error) = diolkos(&["status", "--server", "http://127.0.0.1:9"]);
    assert_eq!(code, 3);
    assert!(
        error.contains("no Diolkos answers at http://127.0.0.1:9") && error.contains("diolkos run"),
        "{error}"
    );
    fs::remove_dir_all(files.path("services"))?;
    let (code, _, error) = diolkos(&[
        "export",
        "-f",
        &files.arg("registry.yaml"),
        "--timeout",
        "1",
    ]);
    assert_eq!(code, 3);
    assert!(
        error.contains("registry files is") && error.contains("services"),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quickstart() -> Result<()> {
    let files = Files::new(SERVICES)?;
    let document = fs::read_to_string(files.path("registry.yaml"))?;
    fs::create_dir(files.path("out"))?;
    let target = format!("directory:{}", files.arg("out"));
    let running = Diolkos::run(&document, &["--to", &target]).await?;
    eventually(SOON, "everything is written", async || {
        running.synced("files").await
    })
    .await;
    let server = format!("http://{}", running.address());
    let (code, services, error) = diolkos(&["status", "--server", &server]);
    assert_eq!(code, 0, "{error}");
    insta::assert_snapshot!("status_table", services);
    let (_, registries, _) = diolkos(&["registries", "--server", &server, "-o", "json"]);
    let registries: serde_json::Value = serde_json::from_str(&registries)?;
    assert_eq!(
        (&registries[0]["name"], &registries[0]["services"]),
        (&"files".into(), &3.into())
    );

    let edited = SERVICES.replace("10.0.0.9", "10.0.0.99");
    fs::write(files.path("services/all.yaml"), edited)?;
    let second = std::time::Duration::from_secs(1);
    eventually(second, "an edit shows up within a second", async || {
        let found = running.get("/api/v1/explain?host=10.0.0.99").await?;
        ensure!(found[0]["host"] == "my-service.mesh", "{found}");
        Ok(())
    })
    .await;
    // The registry document itself is followed too; a faulty edit changes nothing.
    let before = fs::read_to_string(running.document())?;
    fs::write(running.document(), before.replace("{service}", "{servce}"))?;
    eventually(SOON, "the faulty document is reported", async || {
        ensure!(running.log().contains("servce"), "{}", running.log());
        Ok(())
    })
    .await;
    assert!(
        running
            .get("/api/v1/explain?host=my-service.mesh")
            .await
            .is_ok()
    );
    fs::write(running.document(), before.replace(".mesh", ".example"))?;
    eventually(SOON, "another host", async || {
        running.get("/api/v1/explain?host=my-service.example").await
    })
    .await;
    fs::write(running.document(), before)?;
    eventually(SOON, "the first host again", async || {
        running.get("/api/v1/explain?host=my-service.mesh").await?;
        running.synced("files").await
    })
    .await;
    // Half a document is not an empty registry.
    fs::write(
        files.path("services/all.yaml"),
        "name: orders\ninstances:\n- {id: ",
    )?;
    eventually(SOON, "the torn file is reported", async || {
        let (_, _, message) = running.condition("files", "Connected").await?;
        ensure!(message.contains("all.yaml:3"), "{message}");
        Ok(())
    })
    .await;
    let services = running.get("/api/v1/services").await?;
    assert_eq!(services.as_array().map(Vec::len), Some(3), "{services}");
    for (page, code) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/api/v1/explain", 400),
        ("/api/v1/explain?host=nothing", 404),
    ] {
        assert_eq!(running.page(page).await?.0, code, "{page}");
    }
    assert_eq!(count(&files.path("out")), 5, "objects on disk");
    let (_, metrics) = running.page("/metrics").await?;
    for line in [
        r#"diolkos_sink_objects{sink="directory",kind="WorkloadEntry"} 3"#,
        r#"diolkos_source_up{registry="files"} 1"#,
        r#"diolkos_events_total{registry="files",event="snapshot_end"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    Ok(())
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}
