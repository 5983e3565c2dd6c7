//! Identities. Each is its own type, so that one cannot be passed for another; arithmetic goes through named methods.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one that follows.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A task of one node: rises with each task line, part of the name of `dysvr_<id>.conf`.
    TaskId
}
number! {
    /// The fleet's configuration version. 0 is the empty configuration before the first change.
    Revision
}
number! {
    /// A rollout of a fleet from one revision to another. 0 is none.
    RolloutId
}
number! {
    /// A reign of a controller: nodes refuse a task whose epoch is below the highest that they have obeyed.
    Epoch
}
