//! Metrics of OTLP out of those that are served: the same families, samples and labels.
//!
//! They are read from the text of OpenMetrics, which every metric is written in, those of other crates too. Names are those of
//! the families, so that a collector that serves them to Prometheus gives them the names that the node's own `/metrics`
//! has.

use super::message::{
    CUMULATIVE, Data, Gauge, Histogram, HistogramPoint, KeyValue, Metric, Number, NumberPoint, Sum,
};

/// Why text is not taken for OpenMetrics.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no line of OpenMetrics")]
pub(super) struct NoOpenMetrics(String);

/// When what is counted began, and now; in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start_ns: u64,
    pub(super) now_ns: u64,
}

/// Returns the families of a text, without those that have no sample.
///
/// # Errors
/// The text is something else.
pub(super) fn metrics(text: &str, times: Times) -> Result<Vec<Metric>, NoOpenMetrics> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let wrong = || NoOpenMetrics(line.to_owned());
        let Some(said) = line.strip_prefix("# ") else {
            let sample = Sample::parse(line).ok_or_else(wrong)?;
            let family = families.last_mut().ok_or_else(wrong)?;
            family.add(sample, times).ok_or_else(wrong)?;
            continue;
        };
        let mut words = said.splitn(3, ' ');
        let (what, name) = (words.next(), words.next().ok_or_else(wrong)?);
        let text = words.next().unwrap_or_default();
        if families.last().is_none_or(|family| family.name != name) {
            families.push(Family::new(name));
        }
        let family = families.last_mut().ok_or_else(wrong)?;
        match what {
            Some("HELP") => family.help = unescape(text),
            Some("UNIT") => family.unit = unit(text),
            Some("TYPE") => family.kind = Kind::of(text),
            _ => return Err(wrong()),
        }
    }
    Ok(families.into_iter().filter_map(Family::finish).collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    fn of(text: &str) -> Self {
        match text {
            "counter" => Self::Counter,
            "histogram" => Self::Histogram,
            "info" => Self::Info,
            // Of a number that is not known to grow nothing is claimed.
            _ => Self::Gauge,
        }
    }
}

struct Family {
    name: String,
    help: String,
    unit: String,
    kind: Kind,
    points: Vec<NumberPoint>,
    histograms: Vec<HistogramPoint>,
}

impl Family {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            help: String::new(),
            unit: String::new(),
            kind: Kind::Gauge,
            points: Vec::new(),
            histograms: Vec::new(),
        }
    }

    fn add(&mut self, sample: Sample, times: Times) -> Option<()> {
        let suffix = sample.name.strip_prefix(&self.name)?.to_owned();
        if self.kind == Kind::Histogram {
            return self.add_part(suffix.strip_prefix('_')?, sample, times);
        }
        let expected = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let is_sum = self.kind == Kind::Counter;
        self.points.push(NumberPoint {
            start_ns: if is_sum { times.start_ns } else { 0 },
            time_ns: times.now_ns,
            value: Some(sample.value),
            attributes: attributes(sample.labels),
        });
        (suffix == expected).then_some(())
    }

    /// Adds a line of a histogram to the point that has its labels.
    fn add_part(&mut self, part: &str, mut sample: Sample, times: Times) -> Option<()> {
        let bound = sample.labels.iter().position(|(key, _)| key == "le");
        let bound = bound.map(|at| sample.labels.remove(at).1);
        let attributes = attributes(sample.labels);
        let same = self
            .histograms
            .iter()
            .position(|point| point.attributes == attributes);
        let at = same.unwrap_or_else(|| {
            self.histograms.push(HistogramPoint {
                start_ns: times.start_ns,
                time_ns: times.now_ns,
                attributes,
                ..HistogramPoint::default()
            });
            self.histograms.len() - 1
        });
        let point = &mut self.histograms[at];
        match (part, sample.value) {
            ("sum", value) => point.sum = Some(float(value)),
            ("count", Number::Integer(n)) => point.count = n.try_into().ok()?,
            ("bucket", Number::Integer(n)) => {
                let bound: f64 = bound?.parse().ok()?;
                // OpenMetrics counts in each bucket those of the ones below as well.
                let below: u64 = point.buckets.iter().sum();
                point.buckets.push(u64::try_from(n).ok()?.checked_sub(below)?);
                // The last has no upper bound, and is not named.
                if bound.is_finite() {
                    point.bounds.push(bound);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Option<Metric> {
        let data = match self.kind {
            Kind::Histogram => Data::Histogram(Histogram {
                points: self.histograms,
                temporality: CUMULATIVE,
            }),
            Kind::Counter => Data::Sum(Sum {
                points: self.points,
                temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            Kind::Gauge | Kind::Info => Data::Gauge(Gauge { points: self.points }),
        };
        let suffix = if self.kind == Kind::Info { "_info" } else { "" };
        let metric = Metric {
            name: self.name + suffix,
            description: self.help,
            unit: self.unit,
            data: Some(data),
        };
        (metric.n_points() > 0).then_some(metric)
    }
}

impl Metric {
    /// Returns the number of its points.
    pub(super) fn n_points(&self) -> usize {
        match &self.data {
            Some(Data::Gauge(gauge)) => gauge.points.len(),
            Some(Data::Sum(sum)) => sum.points.len(),
            Some(Data::Histogram(histogram)) => histogram.points.len(),
            None => 0,
        }
    }

    /// Takes the points behind the first `n` off, as a metric of its own.
    pub(super) fn split_off(&mut self, n: usize) -> Self {
        let mut rest = self.clone();
        match (&mut self.data, &mut rest.data) {
            (Some(Data::Gauge(one)), Some(Data::Gauge(other))) => other.points = one.points.split_off(n),
            (Some(Data::Sum(one)), Some(Data::Sum(other))) => other.points = one.points.split_off(n),
            (Some(Data::Histogram(one)), Some(Data::Histogram(other))) => {
                other.points = one.points.split_off(n);
            }
            _ => {}
        }
        rest
    }
}

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: Number,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_at(line.find(['{', ' '])?);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_whitespace().next()?;
        let value = match value.parse() {
            Ok(value) => Number::Integer(value),
            Err(_no_integer) => Number::Float(value.parse().ok()?),
        };
        Some(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }
}

/// Returns the labels up to the brace that closes them, and what comes behind it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, value) = rest.split_once("=\"")?;
        let mut is_escaped = false;
        let end = value.find(|character| {
            let ends = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            ends
        })?;
        labels.push((key.to_owned(), unescape(&value[..end])));
        rest = &value[end + 1..];
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(escaped) => escaped,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

fn attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    let labels = labels.into_iter();
    labels.map(|(key, value)| KeyValue::text(key, value)).collect()
}

/// Returns a unit as UCUM writes it.
fn unit(text: &str) -> String {
    match text {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        other => other,
    }
    .to_owned()
}

fn float(number: Number) -> f64 {
    match number {
        Number::Integer(value) => value as f64,
        Number::Float(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        start_ns: 1,
        now_ns: 2,
    };

    fn point(start_ns: u64, value: Number, labels: &[(&str, &str)]) -> NumberPoint {
        NumberPoint {
            start_ns,
            time_ns: 2,
            value: Some(value),
            attributes: labels
                .iter()
                .map(|(key, value)| KeyValue::text(*key, *value))
                .collect(),
        }
    }

    #[test]
    fn every_kind_of_family_becomes_its_own_kind_of_metric() {
        let text = "# HELP a_bytes Bytes \\\"of\\\" a.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{peer=\"p, {\\\"q\\\\\",direction=\"tx\"} 7\na_bytes_total 8\n\
                    # HELP b Build.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP c Gauge.\n# TYPE c gauge\nc -2.5\n\
                    # HELP empty None.\n# TYPE empty gauge\n\
                    # HELP d Times.\n# TYPE d histogram\nd_sum{x=\"1\"} 1.5\nd_count{x=\"1\"} 6\n\
                    d_bucket{le=\"0.5\",x=\"1\"} 1\nd_bucket{le=\"2.0\",x=\"1\"} 5\nd_bucket{le=\"+Inf\",x=\"1\"} 6\n# EOF\n";

        let metrics = metrics(text, TIMES).unwrap();

        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["a_bytes", "b_info", "c", "d"]);
        assert_eq!(
            (metrics[0].description.as_str(), metrics[0].unit.as_str()),
            ("Bytes \"of\" a.", "By")
        );
        let labelled = [("peer", "p, {\"q\\"), ("direction", "tx")];
        let sum = Sum {
            points: vec![
                point(1, Number::Integer(7), &labelled),
                point(1, Number::Integer(8), &[]),
            ],
            temporality: CUMULATIVE,
            is_monotonic: true,
        };
        assert_eq!(metrics[0].data, Some(Data::Sum(sum)));
        let gauge = |point| Some(Data::Gauge(Gauge { points: vec![point] }));
        assert_eq!(
            metrics[1].data,
            gauge(point(0, Number::Integer(1), &[("v", "1")]))
        );
        assert_eq!(metrics[2].data, gauge(point(0, Number::Float(-2.5), &[])));
        let histogram = HistogramPoint {
            start_ns: 1,
            time_ns: 2,
            count: 6,
            sum: Some(1.5),
            buckets: vec![1, 4, 1],
            bounds: vec![0.5, 2.0],
            attributes: vec![KeyValue::text("x", "1")],
        };
        let histogram = Histogram {
            points: vec![histogram],
            temporality: CUMULATIVE,
        };
        assert_eq!(metrics[3].data, Some(Data::Histogram(histogram)));
    }

    #[test]
    fn what_is_no_open_metrics_is_refused() {
        let head = "# TYPE a counter\n";
        for line in [
            "a 1",
            "a_total",
            "a_total x",
            "b_total 1",
            "a_total{k=\"v} 1",
            "# WHAT a counter",
            "",
        ] {
            let text = format!("{head}{line}\n");
            assert_eq!(metrics(&text, TIMES), Err(NoOpenMetrics(line.to_owned())));
        }
        assert!(metrics("a 1\n", TIMES).is_err());
        let falling = "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n";
        assert!(metrics(falling, TIMES).is_err());
    }
}
