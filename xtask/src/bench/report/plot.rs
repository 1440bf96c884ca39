//! The report as a picture: a panel for each figure that is worth one, a bar for each VPN.

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ComparisonReport;
use crate::bench::figure::{Figure, LinkKind};
use crate::bench::stats::Summary;

const PANELS: [(LinkKind, Figure); 12] = [
    (LinkKind::Offloads, Figure::Tcp),
    (LinkKind::Offloads, Figure::TcpBoth),
    (LinkKind::Offloads, Figure::CpuPerGib),
    (LinkKind::Frames, Figure::Tcp),
    (LinkKind::Frames, Figure::TcpLoss5),
    (LinkKind::Frames, Figure::CpuPerGib),
    (LinkKind::Far, Figure::Tcp),
    (LinkKind::Offloads, Figure::SmallClean),
    (LinkKind::Offloads, Figure::SmallOverload),
    (LinkKind::Offloads, Figure::PingIdle50),
    (LinkKind::Offloads, Figure::PingLoad99),
    (LinkKind::Offloads, Figure::Resident),
];
const N_COLUMNS: usize = 3;
const PANEL_WIDTH: i32 = 440;
const BAR_HEIGHT: i32 = 20;
const TITLE_HEIGHT: i32 = 60;
const NAME_WIDTH: i32 = 120;
const VALUE_WIDTH: i32 = 60;
const FONT: &str = "sans-serif";
const OWN: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const OTHER: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const CEILING: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl ComparisonReport {
    /// Returns a picture of the medians, with the spread as a line.
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| anyhow!("cannot draw the report: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<()> {
        let panels: Vec<_> = PANELS
            .into_iter()
            .filter(|(link, figure)| {
                self.columns
                    .iter()
                    .any(|column| column.samples.contains_key(&(*link, *figure)))
            })
            .collect();
        let n_rows = panels.len().div_ceil(N_COLUMNS);
        let panel_height = TITLE_HEIGHT + BAR_HEIGHT * self.columns.len() as i32;
        let size = (
            (PANEL_WIDTH * N_COLUMNS as i32) as u32,
            (panel_height * n_rows as i32) as u32,
        );
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        root.fill(&WHITE).context("background")?;
        for (area, (link, figure)) in root.split_evenly((n_rows, N_COLUMNS)).iter().zip(panels) {
            self.panel(area, link, figure)?;
        }
        root.present().context("end")
    }

    fn panel(&self, area: &Area<'_>, link: LinkKind, figure: Figure) -> Result<()> {
        let title = (FONT, 18).into_font().style(FontStyle::Bold).color(&BLACK);
        let small = (FONT, 15).into_font().color(&BLACK);
        let heading = format!("{}, {}", figure.title(), figure.unit());
        area.draw(&Text::new(heading, (10, 8), title)).context("title")?;
        let hint = if figure.less_is_better() {
            "; less is better"
        } else {
            ""
        };
        let subtitle = format!("{}{hint}", link.short_title());
        area.draw(&Text::new(subtitle, (10, 29), small.clone()))
            .context("link")?;
        let summaries: Vec<Option<Summary>> = self
            .columns
            .iter()
            .map(|column| Summary::of(column.samples.get(&(link, figure))?))
            .collect();
        let largest = summaries
            .iter()
            .flatten()
            .map(|summary| summary.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        let scale = f64::from(PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH - 20) / largest;
        for (row, (column, summary)) in self.columns.iter().zip(summaries).enumerate() {
            let top = TITLE_HEIGHT - 10 + BAR_HEIGHT * row as i32;
            let middle = top + BAR_HEIGHT / 2;
            let name = small.clone().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(column.name, (NAME_WIDTH, middle), name))
                .context("name")?;
            let Some(summary) = summary else { continue };
            let x = |value: f64| NAME_WIDTH + 6 + (value * scale) as i32;
            let color = match column.name {
                "stream-router" => OWN,
                "veth" => CEILING,
                _ => OTHER,
            };
            let corners = [(x(0.0), top + 3), (x(summary.median), top + BAR_HEIGHT - 3)];
            area.draw(&Rectangle::new(corners, color.filled()))
                .context("bar")?;
            let spread = [(x(summary.min), middle), (x(summary.max), middle)];
            area.draw(&PathElement::new(spread, BLACK)).context("spread")?;
            let value = small.clone().pos(Pos::new(HPos::Left, VPos::Center));
            let text = super::markdown::rounded(summary.median);
            area.draw(&Text::new(text, (x(summary.max) + 5, middle), value))
                .context("value")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::report;

    #[test]
    fn every_vpn_has_its_name_in_the_picture() {
        let svg = report().svg().unwrap();

        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        assert!(
            svg.contains("veth") && svg.contains("tinc") && svg.contains("2.00"),
            "{svg}"
        );
    }
}
