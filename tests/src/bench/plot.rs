//! Figures as pictures: lines over an axis, or bars beside each other, in a grid of panels.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

/// Of one panel, in pixels.
const SIZE: (u32, u32) = (480, 360);
const COLUMNS: usize = 3;
/// Ours first; told apart without red against green.
const COLORS: [RGBColor; 5] = [
    RGBColor(0, 110, 160),
    RGBColor(200, 90, 30),
    RGBColor(120, 120, 120),
    RGBColor(90, 60, 140),
    RGBColor(190, 150, 20),
];

/// One picture.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// What is drawn.
    pub shape: Shape,
}

/// What a panel shows.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Both axes from zero.
    Lines {
        /// What the horizontal axis counts.
        x: String,
        /// The lines.
        lines: Vec<Line>,
    },
    /// Both axes logarithmic: sizes and times that span decades.
    Decades {
        /// What the horizontal axis counts.
        x: String,
        /// The lines.
        lines: Vec<Line>,
    },
    /// A bar for each label, its value written above it.
    Bars(Vec<(String, f64)>),
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// Of points.
    pub fn new(label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { label: label.into(), points }
    }
}

/// Writes panels as one SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, panels: &[Panel]) -> Result<()> {
    draw(path, panels).map_err(|error| anyhow!("{error}")).with_context(|| format!("drawing {}", path.display()))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(path: &Path, panels: &[Panel]) -> Drawn {
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns).max(1);
    let size = (SIZE.0 * u32::try_from(columns)?, SIZE.1 * u32::try_from(rows)?);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
        match &panel.shape {
            Shape::Lines { x, lines } => {
                let (across, up) = extents(lines);
                let (right, top) = (across.end.max(1e-9), up.end.max(1e-9) * 1.15);
                let chart = builder(area, &panel.title).build_cartesian_2d(0.0..right, 0.0..top)?;
                draw_lines(chart, x, lines)?;
            }
            Shape::Decades { x, lines } => {
                let (across, up) = extents(lines);
                let chart = builder(area, &panel.title).build_cartesian_2d(
                    (across.start.max(1e-9) / 1.5..across.end.max(1e-8) * 1.5).log_scale(),
                    (up.start.max(1e-9) / 2.0..up.end.max(1e-8) * 3.0).log_scale(),
                )?;
                draw_lines(chart, x, lines)?;
            }
            Shape::Bars(bars) => draw_bars(area, &panel.title, bars)?,
        }
    }
    root.present()?;
    Ok(())
}

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 15)).margin(12).x_label_area_size(36).y_label_area_size(60);
    builder
}

/// The least and the greatest of both axes; of times and sizes zero says nothing.
fn extents(lines: &[Line]) -> (Range<f64>, Range<f64>) {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        low.min(high)..high
    };
    (range(&mut all().map(|point| point.0)), range(&mut all().map(|point| point.1)))
}

fn draw_lines<'a, X, Y>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    x: &str,
    lines: &[Line],
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x)
        .light_line_style(WHITE.mix(0.0))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .draw()?;
    for (line, color) in lines.iter().zip(COLORS.iter().cycle().copied()) {
        let dots = if line.points.len() > 20 { 0 } else { 3 };
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(dots))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.9)).border_style(BLACK.mix(0.2)).draw()?;
    Ok(())
}

fn draw_bars(area: &Area<'_>, title: &str, bars: &[(String, f64)]) -> Drawn {
    let high = bars.iter().map(|bar| bar.1).fold(1e-9, f64::max) * 1.2;
    let last = i32::try_from(bars.len().max(1))? - 1;
    let mut chart = builder(area, title).build_cartesian_2d((0..last).into_segmented(), 0.0..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE.mix(0.0))
        .x_label_formatter(&|at| match at {
            SegmentValue::CenterOf(at) => {
                usize::try_from(*at).ok().and_then(|at| bars.get(at)).map(|bar| bar.0.clone()).unwrap_or_default()
            }
            _ => String::new(),
        })
        .y_label_formatter(&|y| short(*y))
        .draw()?;
    chart.draw_series(bars.iter().zip(COLORS.iter().cycle()).zip(0..).map(|(((_, value), color), at)| {
        let mut bar =
            Rectangle::new([(SegmentValue::Exact(at), 0.0), (SegmentValue::Exact(at + 1), *value)], color.filled());
        bar.set_margin(0, 0, 30, 30);
        bar
    }))?;
    chart.draw_series(bars.iter().zip(0..).map(|((_, value), at)| {
        Text::new(short(*value), (SegmentValue::CenterOf(at), *value + high * 0.05), ("sans-serif", 14))
    }))?;
    Ok(())
}

/// A number with as many digits as an axis has room for.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        size if size >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_axis() {
        let table = [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.0, "1"),
            (150.0, "150"),
            (10_000.0, "10k"),
            (100_000.0, "100k"),
            (2_500_000.0, "2.5M"),
        ];
        for (value, text) in table {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn every_shape_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("all.svg");
        let lines = vec![Line::new("one", vec![(1000.0, 0.5), (10_000.0, 0.6)]), Line::new("none", Vec::new())];
        let panels = [
            Shape::Lines { x: "s".into(), lines: lines.clone() },
            Shape::Decades { x: "vhosts".into(), lines },
            Shape::Decades { x: "vhosts".into(), lines: Vec::new() },
            Shape::Bars(vec![("a".into(), 1.0), ("b".into(), 2.0)]),
            Shape::Bars(Vec::new()),
        ]
        .map(|shape| Panel { title: "panel".into(), shape });
        write(&path, &panels).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("vhosts"));
    }
}
