// The first multiplex group as PixelMed's decoder reads it: one line a channel, "name scale_mV sample sample ...".
import com.pixelmed.dicom.DicomInputStream;
import com.pixelmed.displaywave.DicomSourceECG;
import java.io.File;

public class EcgChannels {
  public static void main(String[] arguments) throws Exception {
    DicomSourceECG ecg = new DicomSourceECG(new DicomInputStream(new File(arguments[0])));
    System.out.println(ecg.getSamplingIntervalInMilliSeconds());
    for (int channel = 0; channel < ecg.getNumberOfChannels(); channel++) {
      StringBuilder line = new StringBuilder(ecg.getChannelNames()[channel].replace(' ', '_'));
      line.append(' ').append(ecg.getAmplitudeScalingFactorInMilliVolts()[channel]);
      for (short sample : ecg.getSamples()[channel]) line.append(' ').append(sample);
      System.out.println(line);
    }
  }
}
