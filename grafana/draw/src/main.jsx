// Lays a dashboard out on its grid and draws each panel, then says that it is done.
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import { createTheme, dateTime, ThemeContext } from '@grafana/data';
import { PanelChrome, GlobalStyles, PortalContainer } from '@grafana/ui';
import { framesOf } from './frames';
import { Panel } from './panels';

const CELL = 30;
const GAP = 8;

class Fence extends Component {
  state = { error: null };
  static getDerivedStateFromError(error) {
    return { error };
  }
  componentDidCatch(error) {
    window.problems.push(`${this.props.title}: ${error.stack}`);
  }
  render() {
    return this.state.error ? <div>{String(this.state.error)}</div> : this.props.children;
  }
}

function Board({ board, answers, range, width, theme }) {
  const column = (width - GAP) / 24;
  const bottom = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const background = { position: 'relative', width, height: bottom * (CELL + GAP) + GAP, background: theme.colors.background.canvas };
  return (
    <div id="board" style={background}>
      {board.panels.map((panel) => {
        const { x, y, w, h } = panel.gridPos;
        const place = {
          position: 'absolute', left: GAP + x * column, top: GAP + y * (CELL + GAP),
          width: w * column - GAP, height: h * (CELL + GAP) - GAP,
        };
        if (panel.type === 'row') {
          const heading = { ...place, ...theme.typography.h6, color: theme.colors.text.primary, lineHeight: `${CELL}px` };
          return <div key={panel.id} style={heading}>⌄ {panel.title}</div>;
        }
        const frames = framesOf(panel, answers[panel.id], range);
        return (
          <div key={panel.id} style={place}>
            <PanelChrome title={panel.title} description={panel.description} width={place.width} height={place.height} padding={panel.type === 'table' ? 'none' : 'md'}>
              {(innerWidth, innerHeight) => (
                <Fence title={panel.title}>
                  <Panel panel={panel} frames={frames} range={range} width={innerWidth} height={innerHeight} />
                </Fence>
              )}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

async function main() {
  window.problems = [];
  const parameters = new URLSearchParams(location.search);
  const drawing = await (await fetch(`./drawing/${parameters.get('board')}.json`)).json();
  const theme = createTheme({ colors: { mode: parameters.get('mode') ?? 'dark' } });
  const range = { ...drawing.range };
  const from = dateTime(range.from * 1000);
  const to = dateTime(range.to * 1000);
  range.time = { from, to, raw: { from, to } };
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <Board board={drawing.board} answers={drawing.answers} range={range} width={Number(parameters.get('width') ?? 1600)} theme={theme} />
      <PortalContainer />
    </ThemeContext.Provider>
  );
  await document.fonts.ready;
  setTimeout(() => { window.done = true; }, 1500);
}

main().catch((error) => {
  window.problems.push(String(error.stack));
  window.done = true;
});
