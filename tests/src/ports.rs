//! Free TCP ports for tests that run side by side, in one process or in many.
//!
//! Binding port 0 and letting go again hands out a port of the kernel's ephemeral range, which any connection that a
//! test opens in between may take. So ports come from below that range, and each is claimed by a lock on a file that
//! the kernel lets go of when this program ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

/// Below the ephemeral range (32768 to 60999), above what services usually use.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The claims of this program, held until it ends, and where the search goes on.
static CLAIMS: Mutex<(Vec<File>, u16)> = Mutex::new((Vec::new(), 0));

/// A port that nobody listens on, on IPv4 and IPv6, and that no other test will be given.
///
/// # Errors
/// When every port of the range is taken.
pub fn free() -> Result<u16> {
    let directory = std::env::temp_dir().join("dysvr-ports");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let mut claims = CLAIMS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if claims.1 == 0 {
        let spread = u16::try_from(std::process::id() % u32::from(RANGE.end - RANGE.start))?;
        claims.1 = RANGE.start + spread;
    }
    for _ in RANGE {
        let port = claims.1;
        claims.1 = if port + 1 >= RANGE.end { RANGE.start } else { port + 1 };
        let file = File::options().create(true).truncate(false).write(true).open(directory.join(port.to_string()))?;
        if file.try_lock().is_ok() && unused(port) {
            claims.0.push(file);
            return Ok(port);
        }
    }
    bail!("no free port in {RANGE:?}")
}

/// Whether IPv6 is there.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn unused(port: u16) -> bool {
    let free = |addr: SocketAddr| TcpListener::bind(addr).is_ok();
    free((Ipv4Addr::UNSPECIFIED, port).into()) && (!has_ipv6() || free((Ipv6Addr::UNSPECIFIED, port).into()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_is_given_once() {
        let ports: std::collections::BTreeSet<u16> = (0..20).map(|_| super::free().unwrap()).collect();
        assert_eq!(ports.len(), 20);
    }
}
