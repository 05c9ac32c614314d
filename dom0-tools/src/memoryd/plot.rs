//! A recording as a picture: one SVG file that needs nothing else.
//!
//! ```text
//!   the host     what each domain has, one upon the other, and what is free above
//!   each domain  what it has (area), what it is to have (dashes), what it needs (line), its minimum and maximum;
//!                below that its pressure in percent, with red marks where its tasks waited for memory
//! ```

use std::fmt::Write;

use anyhow::{Result, bail};

use super::record::{DomainSample, Sample};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 66.0;
const HOST_HEIGHT: f64 = 190.0;
const MEMORY_HEIGHT: f64 = 150.0;
const PRESSURE_HEIGHT: f64 = 54.0;
/// Between a domain's two charts, and between charts of different things: room for a heading and the times.
const GAP: f64 = 10.0;
const HEADING: f64 = 44.0;
/// More points than this in a line cannot be told apart.
const MOST_POINTS: usize = 4000;
/// Pressure beyond is drawn at the edge.
const MOST_PRESSURE: f64 = 200.0;
/// Colours that also the colour-blind tell apart (Okabe and Ito), from the second domain on again.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f"];
const NOBODY: &str = "#d9d9d9";

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.h{font-weight:bold;font-size:14px}.t{font-size:18px;font-weight:bold}\
.s{fill:#555}.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#ddd;stroke-width:1}.f{fill:none;stroke:#999}\
.a{fill-opacity:.35;stroke:none}.l{fill:none;stroke-width:1.6;stroke-linejoin:round}.d{stroke-dasharray:6 3}\
.n{fill:none;stroke:#222;stroke-width:1.8;stroke-linejoin:round}.b{stroke:#888;stroke-dasharray:2 3}.w{stroke:#d00;stroke-width:2}";

const KEYS: &str =
    "area: has · dashes: is to have · black: needs · below: pressure, red where tasks waited for memory";

/// A chart's place, and what its edges mean.
#[derive(Clone, Copy, Debug)]
struct Chart {
    top: f64,
    height: f64,
    /// Seconds at the right edge.
    seconds: f64,
    /// The amount at the upper edge.
    most: f64,
}

impl Chart {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, amount: f64) -> f64 {
        self.top + self.height * (1.0 - (amount / self.most).clamp(0.0, 1.0))
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Frame, lines across with their amounts, and lines for the times.
    fn frame(&self, out: &mut String, unit: &str, with_times: bool) {
        let (right, bottom) = (WIDTH - RIGHT, self.bottom());
        for amount in ticks(self.most, self.height / 40.0) {
            let y = self.y(amount);
            let _ = writeln!(out, r#"<line class="g" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
            let _ = writeln!(
                out,
                r#"<text class="s e" x="{:.1}" y="{:.1}">{amount}{unit}</text>"#,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for seconds in ticks(self.seconds, 10.0) {
            let x = self.x(seconds);
            let _ = writeln!(
                out,
                r#"<line class="g" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom:.1}"/>"#,
                self.top
            );
            if with_times {
                let y = bottom + 14.0;
                let _ = writeln!(out, r#"<text class="s m" x="{x:.1}" y="{y:.1}">{seconds} s</text>"#);
            }
        }
        let (width, top, height) = (right - LEFT, self.top, self.height);
        let _ = writeln!(
            out,
            r#"<rect class="f" x="{LEFT}" y="{top:.1}" width="{width}" height="{height:.1}"/>"#
        );
    }

    /// Points as SVG writes them.
    fn points(&self, all: &[(f64, f64)]) -> String {
        let step = all.len().div_ceil(MOST_POINTS).max(1);
        let last = all.len().saturating_sub(1);
        let mut text = String::new();
        for (index, (seconds, amount)) in all.iter().enumerate() {
            if index % step == 0 || index == last {
                let _ = write!(text, "{:.1},{:.1} ", self.x(*seconds), self.y(*amount));
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn line(&self, out: &mut String, class: &str, colour: Option<&str>, all: &[(f64, f64)]) {
        if !all.is_empty() {
            let stroke = colour.map_or(String::new(), |colour| format!(r#" stroke="{colour}""#));
            let _ = writeln!(out, r#"<polyline class="{class}"{stroke} points="{}"/>"#, self.points(all));
        }
    }

    /// What is between two lines of the same times.
    fn area(&self, out: &mut String, colour: &str, lower: &[(f64, f64)], upper: &[(f64, f64)]) {
        if !upper.is_empty() {
            let back: Vec<_> = lower.iter().rev().copied().collect();
            let (there, back) = (self.points(upper), self.points(&back));
            let _ = writeln!(out, r#"<polygon class="a" fill="{colour}" points="{there} {back}"/>"#);
        }
    }

    /// A line across, with its name at the right.
    fn bound(&self, out: &mut String, name: &str, amount: f64) {
        let (y, right) = (self.y(amount), WIDTH - RIGHT);
        let _ = writeln!(out, r#"<line class="b" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
        let below = if y - self.top < 16.0 { 13.0 } else { -3.0 };
        let (x, y) = (right - 4.0, y + below);
        let _ = writeln!(out, r#"<text class="s e" x="{x}" y="{y:.1}">{name}</text>"#);
    }
}

/// Round numbers from 0 to `most`, about `count` of them.
fn ticks(most: f64, count: f64) -> Vec<f64> {
    let rough = most / count.max(1.0);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough).max(1.0);
    (0..).map(|index| f64::from(index) * step).take_while(|tick| *tick <= most * 1.0001).take(100).collect()
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Text in XML: nothing in a name is taken for markup.
fn escaped(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '?' } else { c };
    text.chars()
        .map(visible)
        .collect::<String>()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// One domain over time.
struct Series<'a> {
    domid: u16,
    name: &'a str,
    colour: &'static str,
    /// Seconds since the start, and the moment.
    moments: Vec<(f64, &'a DomainSample)>,
}

impl Series<'_> {
    fn values(&self, value: impl Fn(&DomainSample) -> Option<f64>) -> Vec<(f64, f64)> {
        self.moments.iter().filter_map(|(time, sample)| Some((*time, value(sample)?))).collect()
    }
}

/// The domains in the order in which they came.
fn series(samples: &[Sample], start: f64) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    for sample in samples {
        for domain in &sample.domains {
            let moment = (sample.time - start, domain);
            // While a domain is made its number is its name, and it may get another later: the last one counts.
            if let Some(one) = all.iter_mut().find(|one| one.domid == domain.domid) {
                one.name = &domain.name;
                one.moments.push(moment);
                continue;
            }
            // dom0, which has what it has, is grey.
            let colour = match domain.domid {
                0 => NOBODY,
                _ => COLOURS[all.iter().filter(|one| one.domid != 0).count() % COLOURS.len()],
            };
            all.push(Series { domid: domain.domid, name: &domain.name, colour, moments: vec![moment] });
        }
    }
    all
}

/// Draws it.
///
/// # Errors
/// Nothing was recorded.
pub fn svg(samples: &[Sample]) -> Result<String> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        bail!("nothing was recorded: record with xl memory record FILE while domains run");
    };
    let start = first.time;
    let seconds = (last.time - start).max(1.0);
    let all = series(samples, start);
    let shown: Vec<_> = all.iter().filter(|one| one.domid != 0).collect();
    let each = HEADING + MEMORY_HEIGHT + GAP + PRESSURE_HEIGHT;
    let height = TOP + HOST_HEIGHT + each * shown.len() as f64 + HEADING;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <title>Memory of {} domains over {seconds:.0} s</title>\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text class=\"t\" x=\"{LEFT}\" y=\"24\">Memory over {seconds:.0} s, in MiB</text>\n\
         <text class=\"s e\" x=\"{right}\" y=\"24\">{KEYS}</text>\n",
        shown.len(),
        right = WIDTH - RIGHT,
    );
    host(&mut out, samples, &all, seconds);
    let mut top = TOP + HOST_HEIGHT + HEADING;
    for one in shown {
        domain(&mut out, one, top, seconds);
        top += each;
    }
    out.push_str("</svg>\n");
    Ok(out)
}

/// What all have, one upon the other.
fn host(out: &mut String, samples: &[Sample], all: &[Series<'_>], seconds: f64) {
    let total = samples.iter().map(|sample| sample.total_kib).max().unwrap_or(1).max(1);
    let chart = Chart { top: TOP, height: HOST_HEIGHT, seconds, most: mib(total) };
    let start = samples[0].time;
    let mut x = LEFT;
    let mut below: Vec<(f64, f64)> = samples.iter().map(|sample| (sample.time - start, 0.0)).collect();
    for one in all {
        let has = |sample: &Sample| {
            let is_it = |domain: &&DomainSample| domain.domid == one.domid;
            sample.domains.iter().find(is_it).map_or(0.0, |domain| mib(domain.assigned_kib))
        };
        let above: Vec<_> = samples
            .iter()
            .zip(&below)
            .map(|(sample, (time, amount))| (*time, amount + has(sample)))
            .collect();
        chart.area(out, one.colour, &below, &above);
        chart.line(out, "l", Some(one.colour), &above);
        x = legend(out, x, one.colour, one.name);
        below = above;
    }
    legend(out, x, "#fff", "free");
    chart.frame(out, "", true);
}

/// An entry above the host's chart; where the next one goes.
fn legend(out: &mut String, x: f64, colour: &str, name: &str) -> f64 {
    let short: String = name.chars().take(24).collect();
    let y = TOP - 22.0;
    let _ = writeln!(
        out,
        r##"<rect x="{x:.0}" y="{y}" width="12" height="12" fill="{colour}" fill-opacity=".6" stroke="#999"/>"##
    );
    let _ = writeln!(out, r#"<text x="{:.0}" y="{}">{}</text>"#, x + 17.0, y + 11.0, escaped(&short));
    x + 34.0 + 7.0 * short.chars().count() as f64
}

/// One domain: memory above, pressure below.
fn domain(out: &mut String, one: &Series<'_>, top: f64, seconds: f64) {
    let Some((_, last)) = one.moments.last() else { return };
    let (name, number) = (escaped(one.name), one.domid);
    let y = top - 10.0;
    let _ = writeln!(out, r#"<text class="h" x="{LEFT}" y="{y:.1}">{name} (domain {number})</text>"#);

    let amounts = |value: fn(&DomainSample) -> Option<u64>| one.values(|sample| value(sample).map(mib));
    let has = amounts(|sample| Some(sample.assigned_kib));
    let target = amounts(|sample| Some(sample.target_kib));
    let demand = amounts(|sample| sample.demand_kib);
    let drawn = has.iter().chain(&target).chain(&demand).map(|(_, amount)| *amount);
    let highest = drawn.fold(mib(last.minimum_kib), f64::max);
    // The maximum is shown if it is not far above all else.
    let maximum = mib(last.maximum_kib);
    let most = if maximum < highest * 2.0 { highest.max(maximum) } else { highest } * 1.05;
    let chart = Chart { top, height: MEMORY_HEIGHT, seconds, most: most.max(1.0) };
    let zero: Vec<_> = has.iter().map(|(time, _)| (*time, 0.0)).collect();
    chart.area(out, one.colour, &zero, &has);
    chart.frame(out, "", false);
    chart.bound(out, "minimum", mib(last.minimum_kib));
    if maximum <= most {
        chart.bound(out, "maximum", maximum);
    }
    chart.line(out, "l", Some(one.colour), &has);
    chart.line(out, "l d", Some(one.colour), &target);
    chart.line(out, "n", None, &demand);

    let below = Chart { top: chart.bottom() + GAP, height: PRESSURE_HEIGHT, seconds, most: MOST_PRESSURE };
    below.frame(out, " %", true);
    below.bound(out, "", 100.0);
    below.line(
        out,
        "l",
        Some(one.colour),
        &one.values(|sample| sample.pressure.map(|pressure| pressure as f64)),
    );
    let edge = below.bottom();
    for (time, _) in one.moments.iter().filter(|(_, sample)| sample.is_stalled) {
        let x = below.x(*time);
        let _ = writeln!(
            out,
            r#"<line class="w" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{edge:.1}"/>"#,
            edge - 8.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32) -> Vec<Sample> {
        let domain = |domid: u16, index: u32| DomainSample {
            domid,
            name: if domid == 0 { "Domain-0".into() } else { format!("<g{domid}>&\u{7}") },
            assigned_kib: 262_144 + u64::from(index) * 1024,
            target_kib: 300_000,
            demand_kib: (domid != 0).then_some(200_000),
            pressure: (domid != 0).then_some(u64::from(index)),
            minimum_kib: 65_536,
            maximum_kib: 524_288,
            is_stalled: index == 3,
        };
        (0..count)
            .map(|index| Sample {
                time: 1000.0 + f64::from(index),
                total_kib: 3 << 20,
                available_kib: 1 << 20,
                domains: (0..3).map(|id| domain(id, index)).collect(),
            })
            .collect()
    }

    #[test]
    fn a_picture_has_a_chart_for_the_host_and_two_for_each_domain() {
        let picture = svg(&samples(60)).unwrap();
        assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("class=\"f\"").count(), 5);
        assert_eq!(picture.matches("class=\"w\"").count(), 2);
        // Names are text, whatever is in them, and nothing comes from elsewhere.
        assert!(picture.contains("&lt;g1>&amp;? (domain 1)") && !picture.contains("<g1>"));
        assert_eq!(picture.matches("http").count(), 1);
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn a_long_recording_stays_a_small_picture() {
        let picture = svg(&samples(20_000)).unwrap();
        assert!(picture.len() < 2 << 20, "{}", picture.len());
    }

    #[test]
    fn a_moment_is_a_picture_and_nothing_is_none() {
        assert!(!svg(&samples(1)).unwrap().contains("NaN"));
        assert!(svg(&[]).unwrap_err().to_string().contains("nothing was recorded"));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(100.0, 5.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(3072.0, 4.0), [0.0, 1000.0, 2000.0, 3000.0]);
        assert_eq!(ticks(1.0, 10.0), [0.0, 1.0]);
    }
}
