//! A demand for memory over time, as text: `0:40,5:200,20~60`.
//!
//! A point `SECONDS:MIB` is a step, taken at that time; `SECONDS~MIB` is reached in a straight line from the point before.
//! Before the first point the demand is nothing, after the last one it stays.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

/// The most points.
const MOST: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    ms: u64,
    kib: u64,
    is_line: bool,
}

/// A demand over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve(ArrayVec<Point, MOST>);

impl Curve {
    /// Reads the text. `None`: it is something else, its times do not rise, or it has too many points.
    pub fn parse(text: &str) -> Option<Self> {
        let mut points = ArrayVec::<Point, MOST>::new();
        for word in text.split(',') {
            let is_line = word.contains('~');
            let (seconds, mib) = word.split_once([':', '~'])?;
            let ms = seconds.parse::<u32>().ok()?;
            let kib = mib.parse::<u32>().ok()?;
            let point = Point { ms: u64::from(ms) * 1000, kib: u64::from(kib) * 1024, is_line };
            if points.last().is_some_and(|last| last.ms >= point.ms) {
                return None;
            }
            points.try_push(point).ok()?;
        }
        Some(Self(points))
    }

    /// The demand at a time since the start, in KiB.
    pub fn at(&self, ms: u64) -> u64 {
        let next = self.0.partition_point(|point| point.ms <= ms);
        let before = next.checked_sub(1).map_or(Point { ms: 0, kib: 0, is_line: false }, |last| self.0[last]);
        match self.0.get(next) {
            Some(point) if point.is_line => {
                let (passed, whole) = (ms - before.ms, point.ms - before.ms);
                let part = point.kib.abs_diff(before.kib) * passed / whole;
                if point.kib > before.kib { before.kib + part } else { before.kib - part }
            }
            Some(_) | None => before.kib,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_lines() {
        let curve = Curve::parse("1:40,5:200,10~100,20~150").unwrap();
        let mib = |ms| curve.at(ms) / 1024;
        assert_eq!([0, 999, 1000, 4999, 5000].map(mib), [0, 0, 40, 40, 200]);
        assert_eq!([7500, 10_000, 15_000, 20_000, 99_000].map(mib), [150, 100, 125, 150, 150]);
        assert_eq!(Curve::parse("10~100").unwrap().at(5000), 50 * 1024);
    }

    #[test]
    fn what_is_no_curve() {
        for text in ["", "5", "5:", "x:1", "5:1,5:2", "5:1,4:2", "0:-1", &"1:1,".repeat(40)] {
            assert_eq!(Curve::parse(text), None, "{text}");
        }
    }
}
