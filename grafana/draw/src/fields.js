// The configuration of fields, as the dashboard's JSON states it, applied by Grafana's own code.
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldConfigOptionsRegistry,
  identityOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
} from '@grafana/data';

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'links', 'noValue'];

// Some transformers have two names in that object.
standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((each) => [each.id, each])).values()].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation: () => Promise.resolve(transformation),
  }))
);

const option = (id) => {
  const custom = id.startsWith('custom.');
  return {
    id,
    path: custom ? id.slice('custom.'.length) : id,
    name: id,
    isCustom: custom,
    editor: () => null,
    override: () => null,
    process: identityOverrideProcessor,
    shouldApply: () => true,
    settings: {},
  };
};

export function configured(panel, data, theme) {
  const overrides = panel.fieldConfig?.overrides ?? [];
  const named = overrides.flatMap((each) => each.properties.map(({ id }) => id));
  const custom = Object.keys(panel.fieldConfig?.defaults?.custom ?? {}).map((name) => `custom.${name}`);
  const registry = new FieldConfigOptionsRegistry(() =>
    [...new Set([...STANDARD, ...named, ...custom])].map(option)
  );
  const found = applyFieldOverrides({
    data,
    fieldConfig: { defaults: panel.fieldConfig?.defaults ?? {}, overrides },
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(found);
  return found;
}
