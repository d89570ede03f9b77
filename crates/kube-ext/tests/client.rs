//! Where a client comes from, and what is said when there is none.

use std::path::Path;

use diolkos_kube_ext::{ClientError, client};

async fn error(kubeconfig: &Path) -> ClientError {
    diolkos_testkit::install_crypto();
    client(Some(kubeconfig))
        .await
        .err()
        .expect("there is no cluster")
}

#[tokio::test]
async fn a_kubeconfig_that_is_missing_or_broken_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config");
    let missing = error(&path).await.to_string();
    assert!(
        missing.contains(&path.display().to_string()) && missing.contains("--kubeconfig"),
        "{missing}"
    );

    std::fs::write(&path, "apiVersion: v1\nkind: Config\n")?;
    let empty = error(&path).await.to_string();
    assert!(empty.contains("current context"), "{empty}");

    std::fs::write(&path, "clusters: [")?;
    let broken = error(&path).await.to_string();
    assert!(broken.contains("parse"), "{broken}");
    Ok(())
}
