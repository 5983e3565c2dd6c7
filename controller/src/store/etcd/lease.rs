//! The leader's lease: renewed while it leads, given back when it resigns, given up in time when it cannot be renewed.

use std::time::Duration;

use etcd_client::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use super::answer::within;
use super::members::Members;
use crate::store::DEADLINE;

/// How long a leader that has fallen silent stays the leader, seconds.
pub(super) const LEASE_SECONDS: i64 = 10;

/// A leader that could not renew its lease for that long stops by its own clock, well before others may begin.
const STEP_DOWN: Duration = Duration::from_secs(7);

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// Renews a lease until it is lost or given back.
pub(super) async fn keep(
    members: Members,
    lease: i64,
    began: Instant,
    lost: watch::Sender<bool>,
    mut resigned: oneshot::Receiver<()>,
) {
    let mut renewed = began;
    loop {
        let round = async {
            // A stream per round: a cut one heals by itself.
            let sent = Instant::now();
            let (n, client) = members.current();
            let mut leases = client.lease_client();
            let kept = timeout(RENEW, leases.keep_alive(lease)).await;
            tokio::time::sleep_until(sent + RENEW).await;
            match kept {
                Ok(Ok(_)) => Some(sent),
                Ok(Err(Error::LeaseKeepAliveError(_))) => None,
                _ => {
                    members.silent(n);
                    Some(renewed)
                }
            }
        };
        tokio::select! {
            _ = &mut resigned => {
                let (_, client) = members.current();
                let _ = within(DEADLINE, client.lease_client().revoke(lease)).await;
                break;
            }
            kept = round => match kept {
                // Counted from when it was asked, so that a pause of this process cannot lengthen it.
                Some(at) => renewed = at,
                None => break,
            },
            () = tokio::time::sleep_until(renewed + STEP_DOWN) => break,
        }
        if renewed.elapsed() >= STEP_DOWN {
            break;
        }
    }
    lost.send_replace(true);
}
