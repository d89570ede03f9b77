//! Programs under test: signals, what they use, and a disk that fills up.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::assert_gone;
use diolkos_testkit::{Program, SmallDisk, eventually};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Result<Program> {
    Program::prepare("sh", Path::new("/bin/sh"))?.start(&["-c".into(), script.into()])
}

#[tokio::test]
async fn signals_restart_and_usage() -> Result<()> {
    let program = shell("echo started; while :; do :; done")?;
    let used = async |least: Duration| {
        let cpu = program.cpu()?;
        ensure!(cpu >= least, "{cpu:?}");
        Ok(cpu)
    };
    let before = eventually(SOON, "it works", async || {
        used(Duration::from_millis(50)).await
    })
    .await;
    let memory = program.memory()?;
    assert!((100_000..100_000_000).contains(&memory), "{memory}");

    program.stop_process()?;
    let stopped = program.cpu()?;
    let at = Instant::now();
    while at.elapsed() < Duration::from_millis(100) {
        assert_eq!(program.cpu()?, stopped);
        tokio::task::yield_now().await;
    }
    program.continue_process()?;
    eventually(SOON, "it works on", async || used(stopped + before).await).await;

    let (pid, kill) = (program.pid(), program.killer());
    kill()?;
    assert_gone(pid).await;
    program.cpu().expect_err("it is gone");
    program.restart()?;
    eventually(SOON, "it runs again", async || {
        used(Duration::from_millis(10)).await
    })
    .await;
    assert_eq!(program.log(), "started\nstarted\n");
    drop(program);
    kill()?;
    Ok(())
}

/// Adds 4 KB to a file every few milliseconds and says how it went.
const WRITER: &str = r#"while :; do
    if head -c 4096 /dev/zero 2>/dev/null >> "$0/file"; then echo ok; else echo failed; fi
    sleep 0.02
done"#;

#[tokio::test]
async fn a_disk_fills_up_is_freed_and_outlives_the_program() -> Result<()> {
    let disk = SmallDisk::new(8 << 20).await?;
    let writer = Program::prepare("sh", Path::new("/bin/sh"))?.on(&disk);
    let args = [
        "-c".into(),
        WRITER.into(),
        disk.path().display().to_string(),
    ];
    let writer = writer.start(&args)?;
    // What it says from now on.
    let says = async |word: &str| {
        let before = writer.log().len();
        eventually(SOON, word, async || {
            writer.log()[before..].lines().any(|line| line == word)
        })
        .await;
    };
    says("ok").await;
    assert!(fs::metadata(disk.outside().join("file"))?.len() >= 4096);
    assert!(
        !disk.path().join("file").exists(),
        "only the program sees it"
    );

    fs::write(disk.outside().join("kept"), "1")?;
    disk.fill()?;
    says("failed").await;
    disk.free()?;
    says("ok").await;

    writer.kill()?;
    disk.read_only(true)?;
    writer.restart()?;
    says("failed").await;
    disk.read_only(false)?;
    says("ok").await;
    assert_eq!(fs::read_to_string(disk.outside().join("kept"))?, "1");

    let pid = writer.pid();
    drop(writer);
    assert_gone(pid).await;
    Ok(())
}
