// One component for each kind of panel that the dashboards use.
import { useEffect, useState } from 'react';
import { lastValueFrom } from 'rxjs';
import { FALLBACK_COLOR, getDisplayValueAlignmentFactors, getFieldDisplayValues, transformDataFrame, VizOrientation } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, useTheme2, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { configured } from './fields';

const plain = (text) => text;

function Nothing({ panel, width, height }) {
  const theme = useTheme2();
  const style = {
    width, height, display: 'flex', alignItems: 'center', justifyContent: 'center', textAlign: 'center',
    color: theme.colors.text.secondary, fontSize: theme.typography.body.fontSize,
  };
  return <div style={style}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

function Lines({ panel, frames, range, width, height }) {
  const theme = useTheme2();
  const data = configured(panel, frames, theme);
  return (
    <TimeSeries
      frames={data}
      width={width}
      height={height}
      timeRange={range.time}
      timeZone="utc"
      legend={panel.options.legend}
      structureRev={1}
    />
  );
}

/** Values reduced from the frames, each drawn by `renderValue` in its part of the room. */
function Repeated({ panel, frames, sparkline, ...layout }) {
  const theme = useTheme2();
  const values = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: plain,
    theme,
    data: configured(panel, frames, theme),
    sparkline,
    timeZone: 'utc',
  });
  const factors = getDisplayValueAlignmentFactors(values);
  return (
    <VizRepeater
      getValues={() => values}
      getAlignmentFactors={() => factors}
      source={values}
      {...layout}
    />
  );
}

function Figures({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { options } = panel;
  return (
    <Repeated
      panel={panel}
      frames={frames}
      sparkline={options.graphMode !== 'none'}
      width={width}
      height={height}
      itemSpacing={3}
      orientation={VizOrientation.Auto}
      renderValue={({ value, alignmentFactors, width, height, count }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          alignmentFactors={alignmentFactors}
          text={options.text}
          width={width}
          height={height}
          theme={theme}
          hasLinks={false}
        />
      )}
    />
  );
}

function Bars({ panel, frames, width, height }) {
  const theme = useTheme2();
  const { options } = panel;
  return (
    <Repeated
      panel={panel}
      frames={frames}
      width={width}
      height={height}
      itemSpacing={8}
      minVizWidth={options.minVizWidth}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      orientation={options.orientation}
      renderValue={({ value, alignmentFactors, orientation, width, height }) => (
        <BarGauge
          value={{ ...value.display, color: value.display.color ?? FALLBACK_COLOR }}
          width={width}
          height={height}
          orientation={orientation}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          text={options.text}
          theme={theme}
          itemSpacing={8}
          displayMode={options.displayMode}
          alignmentFactors={alignmentFactors}
          showUnfilled={options.showUnfilled}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
        />
      )}
    />
  );
}

function Grid({ panel, frames, width, height }) {
  const theme = useTheme2();
  const [data, setData] = useState(null);
  useEffect(() => {
    lastValueFrom(transformDataFrame(panel.transformations ?? [], frames)).then(setData);
  }, []);
  if (!data?.length) {
    return null;
  }
  const [frame] = configured(panel, data, theme);
  return (
    <TableNG
      data={frame}
      width={width}
      height={height}
      sortBy={panel.options.sortBy}
      cellHeight={panel.options.cellHeight}
      structureRev={1}
      timeZone="utc"
      fieldConfig={panel.fieldConfig}
    />
  );
}

const KINDS = { timeseries: Lines, stat: Figures, bargauge: Bars, table: Grid };

export function Panel(props) {
  const Kind = KINDS[props.panel.type];
  if (!Kind) {
    throw new Error(`no component for panels of type ${props.panel.type}`);
  }
  if (!props.frames.length) {
    return <Nothing {...props} />;
  }
  return <Kind {...props} />;
}
