//! Loopback ports and addresses that nobody else has.
//!
//! Many test processes run at once, and a server opens its port some time after the test chose it. Two things keep
//! that safe: numbers come from below the kernel's ephemeral range, so no outgoing connection takes one; and each
//! is held by a lock on a file in the system's temporary folder for as long as its value lives, so no other test
//! takes it, even while the server is stopped and restarted. The kernel frees the lock when a process dies.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Below Linux's default ephemeral range (32768-60999), above the servers' well-known ports.
const PORTS: Range<u32> = 17_000..32_000;
/// 127.64.0.1 and up, one number per address: far from the addresses that tests write by hand.
const ADDRESSES: Range<u32> = 1..60_000;

/// A port of 127.0.0.1 that is ours until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// 127.0.0.1 with this port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// An address in 127.0.0.0/8 that is ours until dropped, with all its ports.
#[derive(Debug)]
pub struct Address {
    ip: Ipv4Addr,
    _lock: File,
}

impl Address {
    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

/// One free port of 127.0.0.1.
pub fn port() -> Result<Port> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (number, lock) = claim(&NEXT, PORTS, |n| {
        let number = u16::try_from(n).ok()?;
        // Consul's gossip takes the UDP port of the same number.
        let at = (Ipv4Addr::LOCALHOST, number);
        (TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()).then_some(number)
    })?;
    Ok(Port {
        number,
        _lock: lock,
    })
}

/// `N` free ports of 127.0.0.1.
pub fn free<const N: usize>() -> Result<[Port; N]> {
    let ports: Vec<Port> = (0..N).map(|_| port()).collect::<Result<_>>()?;
    ports
        .try_into()
        .map_err(|_| anyhow::anyhow!("fewer ports than asked for"))
}

/// A loopback address that no other test uses.
pub fn address() -> Result<Address> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = u32::from(Ipv4Addr::new(127, 64, 0, 0));
    let (ip, lock) = claim(&NEXT, ADDRESSES, |n| Some(Ipv4Addr::from(base + n)))?;
    Ok(Address { ip, _lock: lock })
}

/// Takes the next number of `range` whose lock is free and that `usable` accepts.
fn claim<T: fmt::Display>(
    next: &AtomicU32,
    range: Range<u32>,
    usable: impl Fn(u32) -> Option<T>,
) -> Result<(T, File)> {
    let count = range.end - range.start;
    for _ in 0..count {
        // Processes start at different places, so they seldom meet.
        let offset = next
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(process::id().wrapping_mul(97));
        let number = range.start + offset % count;
        let Some(lock) = try_lock(number, range.start)? else {
            continue;
        };
        if let Some(value) = usable(number) {
            return Ok((value, lock));
        }
    }
    bail!("all of the loopback numbers {range:?} are taken")
}

fn try_lock(number: u32, kind: u32) -> Result<Option<File>> {
    let folder = std::env::temp_dir().join("diolkos-testkit-locks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{kind}-{number}"));
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
