//! What the process itself uses, read when somebody asks.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// `process_resident_memory_bytes` and `process_cpu_seconds_total`, under the names that every
/// Prometheus client uses. Absent where there is no `/proc`.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = read("/proc/self/status", resident_bytes) {
            ConstGauge::new(bytes).encode(encoder.encode_descriptor(
                "process_resident_memory",
                "Resident memory of the process",
                Some(&Unit::Bytes),
                MetricType::Gauge,
            )?)?;
        }
        if let Some(seconds) = read("/proc/self/stat", cpu_seconds) {
            ConstCounter::new(seconds).encode(encoder.encode_descriptor(
                "process_cpu",
                "CPU time of the process, user and system",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

fn read<T>(path: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
    parse(&fs::read_to_string(path).ok()?)
}

/// From `/proc/self/status`, which counts in KiB whatever the page size is.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// From `/proc/self/stat`: fields 14 and 15, in ticks of a hundredth of a second (`USER_HZ`, the
/// same on all architectures that matter). The name in field 2 may hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_linux_writes() {
        let status = "Name:\tdiolkos\nVmRSS:\t   12345 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(12345 * 1024));
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn rubbish_is_no_answer() {
        assert_eq!(resident_bytes("VmRSS: many"), None);
        assert_eq!(cpu_seconds("1 (a) S"), None);
    }
}
