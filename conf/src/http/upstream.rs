//! `ngx_http_upstream_module`: `upstream {}` and what stands in it. Its model is [`crate::model::Upstream`].

/// Nothing.
pub type MainSet = ();
/// Nothing.
pub type SrvSet = ();
/// Nothing.
pub type LocSet = ();
