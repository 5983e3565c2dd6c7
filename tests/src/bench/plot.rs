//! The figures as a picture: latency and processor time of an update over the number of vhosts, and what a request
//! costs.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Peer, request, update};

const SIZE: (u32, u32) = (1200, 420);
const DYSVR: RGBColor = RGBColor(0, 110, 160);
const NGINX: RGBColor = RGBColor(200, 90, 30);

/// Writes the picture.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, updates: &[update::Figures], requests: Option<&request::Figures>) -> Result<()> {
    draw(path, updates, requests)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("drawing {}", path.display()))
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(path: &Path, updates: &[update::Figures], requests: Option<&request::Figures>) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((1, 3));
    if let [latency, cpu, request] = panels.as_slice() {
        if !updates.is_empty() {
            over_vhosts(latency, "signal → every worker serves, ms", updates, update::Figures::served)?;
            over_vhosts(cpu, "CPU per update, ms", updates, update::Figures::cpu)?;
        }
        if let Some(figures) = requests {
            per_request(request, figures)?;
        }
    }
    root.present()?;
    Ok(())
}

fn over_vhosts(
    area: &Area<'_>,
    title: &str,
    all: &[update::Figures],
    figure: impl Fn(&update::Figures) -> f64,
) -> Drawn {
    let values: Vec<f64> = all.iter().map(&figure).filter(|value| *value > 0.0).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min) / 2.0;
    let high = values.iter().copied().fold(0.0, f64::max) * 2.0;
    let sizes = all.iter().map(|one| one.vhosts as f64);
    let (first, last) = (sizes.clone().fold(f64::INFINITY, f64::min) / 1.5, sizes.fold(0.0, f64::max) * 1.5);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((first..last).log_scale(), (low..high).log_scale())?;
    // Of the many marks of a logarithmic axis only those that were measured get their number.
    let measured = |x: &f64| all.iter().any(|one| (one.vhosts as f64 - x).abs() < 0.5);
    chart
        .configure_mesh()
        .x_desc("vhosts")
        .light_line_style(WHITE.mix(0.0))
        .x_label_formatter(&|x| if measured(x) { format!("{x:.0}") } else { String::new() })
        .y_label_formatter(&|y| format!("{y}"))
        .draw()?;
    for (peer, color) in [(Peer::Dysvr, DYSVR), (Peer::Nginx, NGINX)] {
        let points: Vec<(f64, f64)> =
            all.iter().filter(|one| one.peer == peer).map(|one| (one.vhosts as f64, figure(one))).collect();
        let label = match peer {
            Peer::Dysvr => "dysvr, in place",
            Peer::Nginx => "nginx, reload",
        };
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(4))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.9)).border_style(BLACK.mix(0.2)).draw()?;
    Ok(())
}

fn per_request(area: &Area<'_>, figures: &request::Figures) -> Drawn {
    let bars = [(0, Peer::Dysvr, DYSVR), (1, Peer::Nginx, NGINX)]
        .map(|(at, peer, color)| (at, color, figures.median(peer, |turn| turn.cpu_us)));
    let high = bars.iter().map(|bar| bar.2).fold(0.0, f64::max) * 1.2;
    let mut chart = ChartBuilder::on(area)
        .caption("CPU per proxied request (1 KiB), µs", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(50)
        .build_cartesian_2d((0..1_i32).into_segmented(), 0.0..high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE.mix(0.0))
        .x_label_formatter(&|at| match at {
            SegmentValue::CenterOf(0) => Peer::Dysvr.name().to_owned(),
            SegmentValue::CenterOf(1) => Peer::Nginx.name().to_owned(),
            _ => String::new(),
        })
        .draw()?;
    chart.draw_series(bars.iter().map(|(at, color, value)| {
        let mut bar =
            Rectangle::new([(SegmentValue::Exact(*at), 0.0), (SegmentValue::Exact(at + 1), *value)], color.filled());
        bar.set_margin(0, 0, 40, 40);
        bar
    }))?;
    chart.draw_series(bars.iter().map(|(at, _, value)| {
        Text::new(format!("{value:.1}"), (SegmentValue::CenterOf(*at), *value + high * 0.05), ("sans-serif", 16))
    }))?;
    Ok(())
}
