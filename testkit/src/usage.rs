//! What a process has used, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second in `/proc/PID/stat`: the kernel's `USER_HZ`, 100 on every platform that Linux has today.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads since the start.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name stands in parentheses and may hold any character. The 12th and 13th fields after it are the times.
    let ticks = stat.rsplit_once(") ").and_then(|(_, rest)| {
        let mut fields = rest.split(' ').skip(11);
        let user: u32 = fields.next()?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        user.checked_add(system)
    });
    Ok(TICK * ticks.with_context(|| format!("no times in {path}: {stat}"))?)
}

/// Resident memory in bytes.
pub(crate) fn memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kilobytes = status.lines().find_map(|line| {
        let value = line.strip_prefix("VmRSS:")?.trim();
        value.strip_suffix(" kB")?.parse::<u64>().ok()
    });
    Ok(1024 * kilobytes.with_context(|| format!("no VmRSS in {path}"))?)
}
