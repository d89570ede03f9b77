//! Which addresses an endpoint may have.

use std::net::IpAddr;

use diolkos_model::Address;

use crate::{Grant, Reason};

/// The metadata services of the clouds that are not link-local.
const METADATA_V6: [&str; 1] = ["fd00:ec2::254"];

/// The address of an endpoint, in canonical form (an IPv4 address mapped into IPv6 is IPv4).
///
/// # Errors
/// The rule that denies it, and why in words.
pub(crate) fn usable(address: &Address, grant: &Grant) -> Result<IpAddr, (Reason, String)> {
    let ip = match address {
        Address::Ip(ip) => ip.to_canonical(),
        Address::Name(name) if name.is_empty() => {
            return Err((Reason::AddressNotIp, "it has no address".into()));
        }
        Address::Name(name) => {
            return Err((
                Reason::AddressNotIp,
                format!("'{name}' is not an IP address; resolution STATIC needs one"),
            ));
        }
    };
    if let Some(what) = denied(ip) {
        return Err((Reason::AddressDenied, format!("{ip} is {what}")));
    }
    let granted = grant.cidrs.iter().any(|net| net.contains(&ip));
    if ip.is_loopback() && !granted {
        return Err((
            Reason::AddressDenied,
            format!("{ip} is a loopback address; name it in grant.cidrs if that is meant"),
        ));
    }
    if !grant.cidrs.is_empty() && !granted {
        return Err((
            Reason::AddressDenied,
            format!("{ip} is outside of grant.cidrs"),
        ));
    }
    Ok(ip)
}

/// What no grant lifts.
fn denied(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        Some("the broadcast address")
    } else if link_local {
        Some("a link-local address (the metadata services of the clouds are among them)")
    } else if METADATA_V6.iter().any(|known| known.parse() == Ok(ip)) {
        Some("the address of a metadata service")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, cidrs: &[&str]) -> Result<String, Reason> {
        let grant = Grant {
            cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            ..Grant::default()
        };
        usable(&address.parse().unwrap(), &grant)
            .map(|ip| ip.to_string())
            .map_err(|(reason, _)| reason)
    }

    #[test]
    fn table() {
        use Reason::{AddressDenied as Denied, AddressNotIp as NotIp};
        for (address, cidrs, expected) in [
            ("10.0.0.1", &[][..], Ok("10.0.0.1")),
            ("fd00::1", &[], Ok("fd00::1")),
            ("[fd00::1]", &[], Ok("fd00::1")),
            ("::ffff:10.0.0.1", &[], Ok("10.0.0.1")),
            ("web.example.org", &[], Err(NotIp)),
            ("unix:///run/x", &[], Err(NotIp)),
            ("fe80::1%eth0", &[], Err(NotIp)),
            ("", &[], Err(NotIp)),
            ("0.0.0.0", &[], Err(Denied)),
            ("::", &[], Err(Denied)),
            ("169.254.169.254", &["169.254.0.0/16"], Err(Denied)),
            ("::ffff:169.254.169.254", &[], Err(Denied)),
            ("fd00:ec2::254", &[], Err(Denied)),
            ("fe80::1", &[], Err(Denied)),
            ("224.0.0.1", &[], Err(Denied)),
            ("ff02::1", &[], Err(Denied)),
            ("255.255.255.255", &[], Err(Denied)),
            ("127.0.0.1", &[], Err(Denied)),
            ("::1", &[], Err(Denied)),
            ("127.0.0.1", &["127.0.0.0/8"], Ok("127.0.0.1")),
            ("10.1.0.1", &["10.0.0.0/16"], Err(Denied)),
            ("10.0.0.1", &["10.0.0.0/16"], Ok("10.0.0.1")),
        ] {
            assert_eq!(
                check(address, cidrs).as_deref().map_err(|r| *r),
                expected,
                "{address} with {cidrs:?}"
            );
        }
    }
}
