//! The modules of `http`. A module is one file here (its table of directives, its typed configuration, its merge) and
//! one file in `node/src/http` (what it does); adding one adds its name to the list below.

use std::fmt::Debug;
use std::sync::Arc;

use crate::directive::Directive;
use crate::intern::Interner;

/// What a module may set at one level of the configuration: values that stand in a block, and how they merge with what
/// the block inherits. A block that sets nothing shares its parent's configuration.
pub trait Level: Debug + Default {
    /// The merged configuration.
    type Conf: Debug + Default;

    /// Own values over inherited ones.
    fn merge(self, parent: &Arc<Self::Conf>) -> Arc<Self::Conf>;
}

/// A module that has nothing at a level.
impl Level for () {
    type Conf = ();

    fn merge(self, parent: &Arc<()>) -> Arc<()> {
        Arc::clone(parent)
    }
}

/// Declares the configuration of a module at one level: `$conf` is the merged form with its defaults, `$set` the values
/// that one block gives, each of which may be absent.
macro_rules! level {
    ($(#[$doc:meta])* pub struct $conf:ident from $set:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $conf { $($(#[$field_doc])* pub $field: $type,)* }

        impl Default for $conf {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        #[doc = concat!("The values of [`", stringify!($conf), "`] that one block gives.")]
        #[derive(Clone, Debug, Default)]
        pub struct $set { $(#[doc = concat!("See [`", stringify!($conf), "::", stringify!($field), "`].")] pub $field: Option<$type>,)* }

        impl $crate::http::Level for $set {
            type Conf = $conf;

            fn merge(self, parent: &std::sync::Arc<$conf>) -> std::sync::Arc<$conf> {
                if true $(&& self.$field.is_none())* {
                    return std::sync::Arc::clone(parent);
                }
                std::sync::Arc::new($conf {
                    $($field: self.$field.unwrap_or_else(|| parent.$field.clone()),)*
                })
            }
        }
    };
}

macro_rules! modules {
    ($($(#[$doc:meta])* $module:ident,)*) => {
        $($(#[$doc])* pub mod $module;)*

        /// The modules' directives.
        pub static TABLES: &[&[Directive]] = &[$($module::DIRECTIVES),*];

        /// What blocks of `http` level set for `http` alone, per module.
        #[derive(Debug, Default)]
        pub struct MainSet { $($(#[$doc])* pub $module: $module::MainSet,)* }
        /// `http`'s own configuration, per module.
        #[derive(Clone, Debug, Default)]
        pub struct MainConf { $($(#[$doc])* pub $module: Arc<<$module::MainSet as Level>::Conf>,)* }
        /// What a block sets at server level, per module.
        #[derive(Debug, Default)]
        pub struct SrvSet { $($(#[$doc])* pub $module: $module::SrvSet,)* }
        /// Server-level configuration, per module.
        #[derive(Debug, Default, Clone)]
        pub struct SrvConf { $($(#[$doc])* pub $module: Arc<<$module::SrvSet as Level>::Conf>,)* }
        /// What a block sets at location level, per module.
        #[derive(Debug, Default)]
        pub struct LocSet {
            $($(#[$doc])* pub $module: $module::LocSet,)*
            /// Who makes the answer.
            pub handler: Option<Handler>,
        }
        /// Location-level configuration, per module.
        #[derive(Debug, Default, Clone)]
        pub struct LocConf {
            $($(#[$doc])* pub $module: Arc<<$module::LocSet as Level>::Conf>,)*
            /// Who makes the answer; not inherited by nested locations.
            pub handler: Option<Handler>,
        }

        impl MainSet {
            /// Own values over the defaults.
            pub fn finish(self) -> MainConf {
                let defaults = MainConf::default();
                MainConf { $($module: self.$module.merge(&defaults.$module),)* }
            }
        }

        impl SrvSet {
            /// Own values over inherited ones.
            pub fn merge(self, parent: &SrvConf) -> SrvConf {
                SrvConf { $($module: self.$module.merge(&parent.$module),)* }
            }

            /// The same; a block that sets nothing shares its parent's configuration as a whole.
            pub fn merge_shared(self, parent: &Arc<SrvConf>) -> Arc<SrvConf> {
                let merged = self.merge(parent);
                let same = true $(&& Arc::ptr_eq(&merged.$module, &parent.$module))*;
                if same { Arc::clone(parent) } else { Arc::new(merged) }
            }
        }

        impl LocSet {
            /// Own values over inherited ones. The handler is the block's own.
            pub fn merge(self, parent: &LocConf) -> LocConf {
                LocConf { $($module: self.$module.merge(&parent.$module),)* handler: self.handler }
            }

            /// The same, with what equal blocks elsewhere have made already.
            fn merge_interned(self, parent: &LocConf, interner: &mut Interner) -> LocConf {
                LocConf {
                    $($module: match self.$module.merge(&parent.$module) {
                        inherited if Arc::ptr_eq(&inherited, &parent.$module) => inherited,
                        own => interner.value(own),
                    },)*
                    handler: self.handler,
                }
            }

            /// The same; a block that sets nothing and has its parent's handler shares its configuration as a whole.
            pub fn merge_shared(self, parent: &Arc<LocConf>, interner: &mut Interner) -> Arc<LocConf> {
                let merged = self.merge_interned(parent, interner);
                let same = Handler::same(merged.handler.as_ref(), parent.handler.as_ref())
                    $(&& Arc::ptr_eq(&merged.$module, &parent.$module))*;
                if same { Arc::clone(parent) } else { Arc::new(merged) }
            }
        }
    };
}

modules! {
    /// `ngx_http_core_module`.
    core,
    /// `ngx_http_rewrite_module`.
    rewrite,
    /// `ngx_http_map_module`.
    map,
    /// `ngx_http_ssl_module`.
    ssl,
    /// `ngx_http_upstream_module`.
    upstream,
    /// `ngx_http_proxy_module`.
    proxy,
    /// `ngx_http_headers_module`.
    headers,
    /// `ngx_http_log_module`.
    log,
    /// The in-place update.
    dysvr,
}

/// Who makes the answer in a location.
#[derive(Clone, Debug)]
pub enum Handler {
    /// `proxy_pass`.
    Proxy(Arc<proxy::Pass>),
}

impl Handler {
    /// Whether two blocks have one handler.
    fn same(a: Option<&Self>, b: Option<&Self>) -> bool {
        match (a, b) {
            (None, None) => true,
            (Some(Self::Proxy(a)), Some(Self::Proxy(b))) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
