import { defineConfig } from 'vite';

// Grafana's library loads a code editor and maps when they are asked for. No panel here has either, and leaving
// them out makes the build ten times faster.
const unneeded = {
  name: 'without-editor-and-maps',
  enforce: 'pre',
  resolveId: (id) => (/ReactMonacoEditor|OpenLayersProvider|CodeMirrorEditor|^monaco-editor|^ol\//.test(id) ? '\0none' : null),
  load: (id) => (id === '\0none' ? { code: 'export default {};', syntheticNamedExports: true } : null),
};

export default defineConfig({
  base: './',
  plugins: [unneeded],
  build: { outDir: '../../build/dashboards', emptyOutDir: true, chunkSizeWarningLimit: 20000, minify: false, target: 'esnext' },
  esbuild: { jsx: 'automatic' },
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'globalThis' },
});
