//! Quantities: `100m`, `1.5`, `1Gi`, `1e3`. Exact decimal arithmetic, rounding up.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Units of a [`Quantity`] in one whole.
const NANO: i128 = 1_000_000_000;
/// Kubernetes caps quantities at 2^63 - 1.
const MAX: i128 = i64::MAX as i128 * NANO;

/// A number in units of 10⁻⁹, at most 2⁶³-1 in magnitude; finer values are rounded up, away
/// from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match a number with an optional suffix (n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or e3): {0:?}"
)]
pub struct QuantityError(pub String);

impl Quantity {
    /// Parses a quantity.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse(text).map(|nanos| Self { nanos }).ok_or_else(|| QuantityError(text.to_owned()))
    }

    /// So many whole ones.
    #[must_use]
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO }
    }

    /// So many thousandths.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000) }
    }

    /// Whole ones, rounded up (away from zero), capped at the limits of `i64`.
    #[must_use]
    pub fn units(self) -> i64 {
        capped(divide_up(self.nanos, NANO))
    }

    /// Thousandths, rounded up (away from zero), capped at the limits of `i64`.
    #[must_use]
    pub fn millis(self) -> i64 {
        capped(divide_up(self.nanos, NANO / 1000))
    }

    /// Both together, capped at the limits.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX) }
    }

    /// The difference, capped at the limits.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos })
    }

    /// Is it below zero?
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

/// Thousandths of a processor; 0 for what is no quantity (validation refuses that).
#[must_use]
pub fn cpu_millis(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).unwrap_or_default().millis()
}

/// Bytes; 0 for what is no quantity (validation refuses that).
#[must_use]
pub fn bytes(quantity: &ApiQuantity) -> i64 {
    Quantity::parse(&quantity.0).unwrap_or_default().units()
}

/// So many thousandths of a processor, as the API writes it: `1500m`, `2`.
#[must_use]
pub fn from_millis(millis: i64) -> ApiQuantity {
    ApiQuantity(Quantity::from_millis(millis).to_string())
}

/// So many bytes, as the API writes it: `64Mi`, `1000`.
#[must_use]
pub fn from_bytes(bytes: i64) -> ApiQuantity {
    for (index, suffix) in ["Ei", "Pi", "Ti", "Gi", "Mi", "Ki"].iter().enumerate() {
        let unit = 1_i64 << (10 * (6 - index));
        if bytes != 0 && bytes % unit == 0 {
            return ApiQuantity(format!("{}{suffix}", bytes / unit));
        }
    }
    ApiQuantity(bytes.to_string())
}

fn capped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn divide_up(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    match (value % by).cmp(&0) {
        Ordering::Greater => quotient + 1,
        Ordering::Less => quotient - 1,
        Ordering::Equal => quotient,
    }
}

/// The value in nanos.
fn parse(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let (multiplier, exponent) = scale(suffix)?;
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    // value = digits · multiplier · 10^power, in nanos.
    let power = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let magnitude = scaled(digits, multiplier, power);
    Some(if negative { -magnitude } else { magnitude })
}

/// Multiplier and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (1, exponent.parse().ok()?)
        }
    })
}

/// `digits · multiplier · 10^power`, rounded up, at most [`MAX`].
fn scaled(digits: &str, multiplier: i128, power: i32) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    if power >= 0 {
        let value = digits.parse::<i128>().ok().and_then(|value| {
            10_i128.checked_pow(power.unsigned_abs())?.checked_mul(value)?.checked_mul(multiplier)
        });
        return value.map_or(MAX, |value| value.min(MAX));
    }
    // Digits so far behind the point that only "more than nothing" remains of them are cut
    // off first, so that the rest fits.
    const KEPT: usize = 19;
    let surplus = digits.len().saturating_sub(KEPT);
    let drop = surplus.min(power.unsigned_abs() as usize);
    let (head, tail) = digits.split_at(digits.len() - drop);
    let sticky = i128::from(tail.bytes().any(|b| b != b'0'));
    let power = power.unsigned_abs() - u32::try_from(drop).unwrap_or(u32::MAX);
    let Some(value) = head.parse::<i128>().ok().and_then(|v| v.checked_mul(multiplier)) else {
        return MAX;
    };
    let quotient = match 10_i128.checked_pow(power) {
        Some(divisor) => divide_up(value, divisor) + sticky * i128::from(value % divisor == 0),
        None => 1,
    };
    quotient.min(MAX)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl fmt::Display for Quantity {
    /// The shortest exact form with a decimal suffix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in [("", NANO), ("m", NANO / 1000), ("u", NANO / 1_000_000)] {
            if self.nanos % unit == 0 {
                return write!(f, "{}{suffix}", self.nanos / unit);
            }
        }
        write!(f, "{}n", self.nanos)
    }
}

#[cfg(test)]
#[path = "quantity_test.rs"]
mod tests;
