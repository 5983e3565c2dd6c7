//! From the options of a rollout to what a controller is asked for.

use dysvr_proto::wire::operator;

use super::cli;
use super::quantity::seconds;

/// What the options say; what they leave open is the controller's choice.
pub fn to_wire(options: &cli::Strategy) -> operator::Strategy {
    operator::Strategy {
        waves: options.waves.clone(),
        failure_budget: options.failure_budget.clone().unwrap_or_default(),
        soak_seconds: options.soak.map_or(0, seconds),
        node_deadline_seconds: options.node_deadline.map_or(0, seconds),
        selector: options.selector.iter().cloned().collect(),
        no_auto_undo: options.no_auto_undo,
    }
}

/// Who changes the fleet: `DYSVR_AUTHOR`, else the user's name.
pub fn author() -> String {
    ["DYSVR_AUTHOR", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}
