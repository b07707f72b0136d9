//! Rows with named columns, and how several seconds of a column become one.
//!
//! A row type names each column once: its field, its CSV header and its name in a series follow
//! from that.

use serde::Serialize;

/// How the values of a column over several seconds become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Their mean: of what flows, so that a figure stays one per second.
    Mean,
    /// The last: of what stands.
    Last,
    /// The greatest: of what hurts when it is high.
    Max,
    /// The least: of what must always be.
    Min,
    /// The first: of what names the row.
    First,
}

impl Fold {
    /// One value of several, in order; none if there is none.
    pub fn of(self, values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
        let mut values = values.flatten();
        match self {
            Fold::First => values.next(),
            Fold::Last => values.last(),
            Fold::Max => values.reduce(f64::max),
            Fold::Min => values.reduce(f64::min),
            Fold::Mean => {
                let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
                (count > 0.0).then(|| sum / count)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// How several seconds of it become one.
    pub fold: Fold,
}

pub trait Figure {
    /// As a number; none where the figure is absent. Above 2^53 the last digits go.
    fn figure(&self) -> Option<f64>;
}

impl Figure for bool {
    fn figure(&self) -> Option<f64> {
        Some(f64::from(u8::from(*self)))
    }
}

impl Figure for f64 {
    fn figure(&self) -> Option<f64> {
        Some(*self)
    }
}

macro_rules! figures {
    ($($integer:ty)*) => {$(
        impl Figure for $integer {
            fn figure(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )*};
}
figures!(u64 i64 usize);

impl<T: Figure> Figure for Option<T> {
    fn figure(&self) -> Option<f64> {
        self.as_ref().and_then(Figure::figure)
    }
}

/// A struct of one row whose fields are columns: `name: type => fold = value`, worked out `of` what is
/// named there. The columns of a series have the prefix before their name.
macro_rules! row {
    (
        $(#[$meta:meta])*
        pub struct $row:ident prefixed $prefix:literal of($($source:ident: $source_type:ty),*) {
            $($(#[$doc:meta])* $name:ident: $type:ty => $fold:ident = $value:expr,)*
        } where {
            $($shorthand:tt)*
        }
    ) => {
        $(#[$meta])*
        pub struct $row {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl $row {
            /// The columns of a series, in order.
            pub const COLUMNS: &'static [$crate::run::column::Column] = &[$(
                $crate::run::column::Column {
                    name: concat!($prefix, stringify!($name)),
                    fold: $crate::run::column::Fold::$fold,
                },
            )*];

            pub fn of($($source: $source_type),*) -> Self {
                $($shorthand)*
                Self { $($name: $value,)* }
            }

            /// The values of [`Self::COLUMNS`], in order.
            pub fn figures(&self) -> [Option<f64>; Self::COLUMNS.len()] {
                [$($crate::run::column::Figure::figure(&self.$name),)*]
            }
        }
    };
}
pub(crate) use row;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_fold_by_their_kind_and_absent_values_do_not_count() {
        let of = |fold: Fold| fold.of([Some(4.0), None, Some(1.0), Some(7.0), None].into_iter());
        assert_eq!(of(Fold::Mean), Some(4.0));
        assert_eq!((of(Fold::First), of(Fold::Last)), (Some(4.0), Some(7.0)));
        assert_eq!((of(Fold::Max), of(Fold::Min)), (Some(7.0), Some(1.0)));
        for fold in [Fold::Mean, Fold::First, Fold::Last, Fold::Max, Fold::Min] {
            assert_eq!(fold.of([None, None].into_iter()), None);
        }
    }
}
