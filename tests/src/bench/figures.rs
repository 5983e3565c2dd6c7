//! Medians and the like.

/// The middle of some figures, or the mean of the two in the middle; 0 without any.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The figure below which that part of all lies (between two neighbours: in proportion); 0 without any.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = part.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// The median of `mine : base`, pair by pair: what was measured side by side is compared side by side, so that a drift
/// of the machine takes itself out. 0 without pairs.
pub fn paired_ratio(mine: &[f64], base: &[f64]) -> f64 {
    let ratios: Vec<f64> = mine.iter().zip(base).filter(|(_, base)| **base > 0.0).map(|(a, b)| a / b).collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn ratios_are_of_pairs() {
        // A machine that becomes ten times slower half way: the ratio stays.
        assert_eq!(paired_ratio(&[2.0, 2.0, 20.0], &[1.0, 1.0, 10.0]), 2.0);
        assert_eq!(paired_ratio(&[1.0], &[0.0]), 0.0);
    }
}
