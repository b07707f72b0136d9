//! Closed lists that are counted by. Each entry is named once; counters, arguments, JSON and
//! metrics follow from it.

/// An enum whose entries have a name for arguments, JSON, tables and metrics.
#[macro_export]
macro_rules! labels {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$entry:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$entry])* $variant,)* }

        impl $name {
            /// Every entry, in the order of its discriminant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            pub const COUNT: usize = Self::ALL.len();

            /// The name in arguments, JSON, tables and metrics.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            /// What is counted by discriminant, with its labels.
            pub fn labelled<T>(counts: impl IntoIterator<Item = T>) -> impl Iterator<Item = (&'static str, T)> {
                Self::ALL.iter().map(|entry| entry.label()).zip(counts)
            }
        }
    };
}
