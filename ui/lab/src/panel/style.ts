/** How do the dialog and the lists look? In JupyterLab's own colours and sizes, so that they fit every theme. */

const STYLE = `
dialog.rtc-Share { box-sizing: border-box; width: min(440px, calc(100vw - 24px)); max-height: calc(100vh - 24px); overflow: auto;
  padding: 20px 24px; border: 1px solid var(--jp-border-color1); border-radius: 3px; background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1); font: var(--jp-ui-font-size1, 13px)/1.4 var(--jp-ui-font-family, sans-serif);
  box-shadow: var(--jp-elevation-z20, 0 8px 32px rgb(0 0 0 / 40%)); }
dialog.rtc-Share::backdrop { background: var(--jp-dialog-background, rgb(0 0 0 / 40%)); }
.rtc-Share h2 { margin: 0 0 2px; font-size: var(--jp-ui-font-size2, 16px); font-weight: 600; overflow-wrap: anywhere; }
.rtc-Share p { margin: 0 0 10px; }
.rtc-Share .rtc-dim, .rtc-Share small, .rtc-Share .rtc-hint { color: var(--jp-ui-font-color2); }
.rtc-Share .rtc-dim { overflow-wrap: anywhere; }
.rtc-Share fieldset { margin: 0 0 14px; padding: 0; border: 0; }
.rtc-Share legend { padding: 0; margin-bottom: 6px; }
.rtc-Share .rtc-role { display: flex; gap: 8px; align-items: flex-start; padding: 4px 0; cursor: pointer; }
.rtc-Share .rtc-role input { margin: 3px 0 0; accent-color: var(--jp-brand-color1); }
.rtc-Share .rtc-role small { display: block; font-size: var(--jp-ui-font-size0, 11px); }
.rtc-Share .rtc-fields { display: grid; grid-template-columns: auto 1fr; gap: 8px 12px; align-items: center; margin-bottom: 12px; }
.rtc-Share input[type="text"] { box-sizing: border-box; width: 100%; min-width: 0; font-size: inherit; }
.rtc-Share select { justify-self: start; min-height: 30px; padding: 0 6px; border: 1px solid var(--jp-border-color1); border-radius: 2px;
  background: var(--jp-input-background, var(--jp-layout-color1)); color: inherit; font: inherit; }
.rtc-Share .rtc-link { display: flex; gap: 8px; align-items: center; }
.rtc-Share .rtc-link input { font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px); }
.rtc-Share .rtc-ways { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 8px; }
.rtc-Share .rtc-ways button[aria-pressed="true"] { background: var(--jp-layout-color3); font-weight: 600; }
.rtc-Share p.rtc-said { min-height: 1.4em; margin: 2px 0 6px; }
.rtc-Share .rtc-qr { display: block; width: min(240px, 100%); margin: 0 auto 10px; background: #fff; border-radius: 3px; }
.rtc-Share .rtc-buttons { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 8px; margin-top: 14px; }
.rtc-Share .rtc-buttons .jp-Dialog-button { margin: 0; }
.rtc-Share :is(button, select, [type="radio"]):focus-visible, .rtc-Lists :focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
.rtc-problem { color: var(--jp-error-color1); margin: 4px 0; overflow-wrap: anywhere; }
.rtc-Lists { padding: 6px 10px; color: var(--jp-ui-font-color1);
  font: var(--jp-ui-font-size1, 13px)/1.4 var(--jp-ui-font-family, sans-serif); }
.rtc-Lists { border-bottom: 1px solid var(--jp-border-color2); max-height: 45%; overflow: auto; flex: none; }
.rtc-Lists summary { cursor: pointer; color: var(--jp-ui-font-color2); font-size: var(--jp-ui-font-size0, 11px); }
.rtc-Lists .rtc-deeds { display: flex; gap: 6px; margin-left: auto; }
.rtc-Lists[open] > summary { margin-bottom: 6px; }
.rtc-Lists h3 { display: flex; align-items: center; gap: 6px; margin: 8px 0 2px; color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size0, 11px); font-weight: 600; text-transform: uppercase; letter-spacing: .04em; }
.rtc-Lists h3:first-child { margin-top: 0; }
.rtc-Lists ul, .rtc-Lists ol { margin: 0; padding: 0; list-style: none; }
.rtc-Lists li { display: flex; flex-wrap: wrap; gap: 0 8px; align-items: baseline; padding: 2px 0; }
.rtc-Lists li > .rtc-what { flex: 1 1 10em; min-width: 0; overflow-wrap: anywhere; }
.rtc-Lists .rtc-dim { color: var(--jp-ui-font-color2); font-size: var(--jp-ui-font-size0, 11px); }
.rtc-Lists code { font: var(--jp-code-font-size, 13px)/1.3 var(--jp-code-font-family, monospace); }
.rtc-Lists p { margin: 2px 0; }
.rtc-Lists button { border: 1px solid var(--jp-border-color1); border-radius: 3px; background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1); font: inherit; font-size: var(--jp-ui-font-size0, 11px); line-height: 1; min-height: 24px;
  padding: 0 8px; cursor: pointer; }
.rtc-Lists button:hover:not(:disabled) { background: var(--jp-layout-color2); }
.rtc-Lists button:disabled { opacity: .6; cursor: default; }
.rtc-Lists button.rtc-danger { border-color: var(--jp-error-color1); }
.rtc-Lists li.rtc-sure { padding: 4px 8px; border-left: 3px solid var(--jp-error-color1); }
`;

const NAME = "rtc-kernel-people-style";

/** Into the page, or into the shadow in which the element stands. */
export function putStyle(element: Node): void {
  const root = element.getRootNode() as Document | ShadowRoot;
  if (root.getElementById(NAME)) return;
  const style = document.createElement("style");
  style.id = NAME;
  style.textContent = STYLE;
  (root instanceof Document ? root.head : root).append(style);
}
