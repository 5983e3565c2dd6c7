//! Health, as gRPC probes ask for it.
//!
//! `liveness` is SERVING as long as the process answers, whatever the store does: a restart heals no store. The empty
//! service and `readiness` are SERVING while the store answers; `dysvr.fleet.v1.Fleet` and `dysvr.operator.v1.Operator`
//! while this controller leads, too.

use std::time::Duration;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::throne::Throne;
use crate::store::keys;

/// Between two looks at the store.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps the answers true.
pub(super) async fn keep(reporter: HealthReporter, throne: Throne) {
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answered = true;
    loop {
        period.tick().await;
        let answer = throne.store().get(keys::HEAD).await;
        if let Err(error) = &answer
            && answered
        {
            tracing::warn!(%error, "the store does not answer");
        } else if answer.is_ok() && !answered {
            tracing::info!("the store answers again");
        }
        answered = answer.is_ok();
        let status = |serving: bool| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "readiness"] {
            reporter.set_service_status(service, status(answered)).await;
        }
        for service in ["dysvr.fleet.v1.Fleet", "dysvr.operator.v1.Operator"] {
            reporter.set_service_status(service, status(answered && throne.leads())).await;
        }
    }
}
